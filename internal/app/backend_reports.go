package app

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/vmgate/vmgate/internal/api"
	"github.com/vmgate/vmgate/internal/event"
	"github.com/vmgate/vmgate/pkg/loader"
	"github.com/vmgate/vmgate/pkg/verdict"
)

// Report implements api.Backend.
func (b backend) Report(ctx context.Context, r api.Report) error {
	evidence := verdict.Evidence{
		Kind: verdict.EvidenceReport, Observed: time.Now(), VM: r.VM, Verdict: verdict.Check, Cause: verdict.CauseReport,
		Detail: fmt.Sprintf("reported %s by %s (%s): %s", r.Finding, r.Author, r.By, r.Reason),
	}
	evidence.Expires = evidence.Observed.Add(r.For)
	if r.Finding == "malicious" {
		evidence.Verdict = verdict.Drop
	}
	s := b.state.Load()
	if n := s.inv.byName[r.VM]; r.VM != "" && (n == nil || n.vm == nil) {
		return fmt.Errorf("%w: there is no VM %q in the inventory", api.ErrNotFound, r.VM)
	}
	var err error
	switch {
	case r.Fingerprint != "":
		err = b.reportFingerprint(r, evidence)
	case r.Flow != nil:
		err = b.reportFlow(*r.Flow, evidence)
	case r.PID != 0:
		err = b.reportProcess(ctx, r, evidence)
	default:
		err = b.reportVM(s, evidence)
	}
	if err != nil {
		return err
	}
	// Stored before the caller is told that it is done: it must outlive a crash.
	return b.save()
}

func (b backend) reportVM(s *state, evidence verdict.Evidence) error {
	if s.spared(s.inv.byName[evidence.VM], verdict.Endpoint{}, nil) {
		return errSpared(evidence.VM)
	}
	b.tellReport(evidence)
	return errors.Join(b.effects.observe(evidence), b.effects.sign(verdict.SignReport, evidence.VM, evidence.Detail))
}

func (b backend) reportProcess(ctx context.Context, r api.Report, evidence verdict.Evidence) error {
	p, err := b.process(ctx, r.VM, r.PID)
	if err != nil {
		return err
	}
	s := b.state.Load()
	if s.spared(s.inv.byName[r.VM], verdict.Endpoint{}, &p) {
		return errSpared(p.String() + " of " + r.VM)
	}
	evidence.Process = &p
	b.tellReport(evidence)
	return errors.Join(b.effects.accuse(evidence), b.effects.sign(verdict.SignReport, r.VM, evidence.Detail))
}

func errSpared(whom string) error {
	return fmt.Errorf("%w: %s is spared by ids.never: only an operator's measure turns against it", api.ErrInvalid, whom)
}

// reportFingerprint puts a file on a list, until the report expires: it is about every
// process that runs it, also those that start later.
func (b backend) reportFingerprint(r api.Report, evidence verdict.Evidence) error {
	list := verdict.Suspect
	if evidence.Verdict == verdict.Drop {
		list = verdict.Malicious
	}
	_, err := b.book.Add(verdict.ListEntry{
		List: list, Origin: verdict.OriginReport, Fingerprint: r.Fingerprint, VM: r.VM,
		Reason: evidence.Detail, Added: evidence.Observed, Expires: evidence.Expires,
	})
	if err != nil {
		return fmt.Errorf("%w: %w", api.ErrInvalid, err)
	}
	b.tellReport(evidence)
	return b.effects.rejudge()
}

// reportFlow is about one connection: its ends are not accused.
func (b backend) reportFlow(t api.Tuple, evidence verdict.Evidence) error {
	key, flow, err := b.findFlow(t)
	if err != nil {
		return err
	}
	b.tellReport(evidence)
	same := func(f loader.Flow) bool { return f.Created == flow.Created && f.Dir[0].SrcMAC == flow.Dir[0].SrcMAC }
	flow.Cleared = false
	if flow.Verdict < uint32(evidence.Verdict) {
		flow.Verdict, flow.Cause = uint32(evidence.Verdict), uint32(verdict.CauseReport)
		// Then it is decided anew.
		flow.Expires = loader.Now() + uint64(time.Until(evidence.Expires))
	}
	return b.effects.clear.during(same, evidence.Detail, func() error { return b.dp.PutFlow(key, flow) })
}

// findFlow finds a live flow by its five numbers, in whatever layer 2 group it is.
func (b backend) findFlow(t api.Tuple) (loader.FlowKey, loader.Flow, error) {
	proto, err := api.ParseProto(t.Proto)
	if err != nil {
		return loader.FlowKey{}, loader.Flow{}, err
	}
	src, err1 := netip.ParseAddr(t.Src)
	dst, err2 := netip.ParseAddr(t.Dst)
	if err := errors.Join(err1, err2); err != nil {
		return loader.FlowKey{}, loader.Flow{}, fmt.Errorf("%w: %w", api.ErrInvalid, err)
	}
	for _, group := range b.state.Load().inv.groups() {
		key, _ := loader.NewFlowKey(proto, netip.AddrPortFrom(src, t.SrcPort), netip.AddrPortFrom(dst, t.DstPort), 0, 0, uint8(group))
		flow, ok, err := b.dp.Flow(key)
		if err != nil {
			return loader.FlowKey{}, loader.Flow{}, err
		}
		if ok && !flowEnded(proto, flow, loader.Now()) {
			return key, flow, nil
		}
	}
	return loader.FlowKey{}, loader.Flow{}, fmt.Errorf("%w: there is no flow %s %s:%d to %s:%d", api.ErrNotFound, t.Proto, t.Src, t.SrcPort, t.Dst, t.DstPort)
}

func (b backend) tellReport(evidence verdict.Evidence) {
	b.journal.write(event.Event{Type: "report", SrcVM: evidence.VM, SrcProcess: evidence.Process, Message: evidence.Detail})
}

// expire lifts what was to stand until now.
func (a *App) expire() {
	if err := a.leases.clean(); err != nil {
		a.log.Error("cannot end leases whose time is over", "error", err)
	}
	n := a.book.Expire(time.Now())
	if n == 0 {
		return
	}
	a.journal.note("report", fmt.Sprintf("%d reports have expired", n))
	if err := a.effects.rejudge(); err != nil {
		a.log.Error("cannot lift what expired reports asked for", "error", err)
	}
}
