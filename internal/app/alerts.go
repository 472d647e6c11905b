package app

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/vmgate/vmgate/pkg/loader"
	"github.com/vmgate/vmgate/pkg/snort"
	"github.com/vmgate/vmgate/pkg/verdict"
)

// alert makes an alert evidence against the process that sent the packet.
func (i *ids) alert(a snort.Alert) {
	s := i.now()
	n := i.sender(s, a)
	if n == nil {
		i.record(a, "", nil)
		return
	}
	wanted := sentence(s.cfg.IDS, a)
	if wanted == verdict.Undecided {
		i.record(a, n.name, nil)
		return
	}
	process, key, err := i.culprit(s, n, a)
	told := i.record(a, n.name, process)
	if s.spared(n, verdict.Endpoint{Addr: a.Src.Addr()}, process) {
		if told {
			i.log.Info("an alert turns against nobody, as ids.never says", "vm", n.name, "sid", a.SID, "alert", a.Message)
		}
		return
	}
	if process == nil {
		if told {
			i.log.Warn("alert could not be traced to a process", "vm", n.name, "sid", a.SID, "alert", a.Message, "error", err)
		}
		i.endFlow(key, wanted)
		return
	}
	if !told && i.stands(process, wanted) {
		return // it says nothing new
	}
	evidence := verdict.Evidence{
		Kind: verdict.EvidenceAlert, Observed: a.Time, VM: n.name, Process: process,
		Verdict: wanted, Cause: verdict.CauseAlert,
		Detail: fmt.Sprintf("%s [%d:%d:%d] %s", a.Engine, a.GID, a.SID, a.Rev, a.Message),
	}
	if err := i.effects.accuse(evidence); err != nil {
		i.log.Error("cannot enforce the verdict on a process", "vm", n.name, "pid", process.PID, "error", err)
	}
}

// record tells of an alert, unless it has been told often enough.
func (i *ids) record(a snort.Alert, vm string, p *verdict.Process) (told bool) {
	if i.repeats.enough(a, vm, p) {
		return false
	}
	i.journal.alert(a, vm, p, 0)
	return true
}

// tellRepeats tells each second how many alerts were not told.
func (i *ids) tellRepeats(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
		for _, r := range i.repeats.next() {
			i.journal.alert(r.alert, r.vm, r.process, r.more())
		}
		if ctx.Err() != nil {
			return
		}
	}
}

// stands says whether a verdict at least as strict stands on a process already.
func (i *ids) stands(p *verdict.Process, v verdict.Verdict) bool {
	_, standing, known := i.effects.owners.standingOf(p.Instance)
	return known && standing.Verdict >= v
}

// sender finds the VM that sent the packet of an alert: the one that has both its
// MAC and its address. What an engine says of the inside of a tunnel was chosen by
// whoever built the packet, and convicts nobody.
func (i *ids) sender(s *state, a snort.Alert) *node {
	n := s.inv.byAddress(a.Src.Addr())
	if n == nil { // learned, perhaps
		if holder, ok, err := i.dp.Addr(0, a.Src.Addr().Unmap()); err == nil && ok {
			n = s.inv.byID[holder.VM]
		}
	}
	if len(a.SrcMAC) != 0 && s.inv.byHardware(a.SrcMAC) != n {
		return nil
	}
	if n == nil || n.vm == nil {
		return nil
	}
	return n
}

// culprit finds the process that sent the packet: the owner that the flow
// bears, or else whoever holds the port now.
func (i *ids) culprit(s *state, n *node, a snort.Alert) (*verdict.Process, loader.FlowKey, error) {
	key, from := loader.NewFlowKey(a.Proto, a.Src, a.Dst, a.VLAN, 0, uint8(n.segment.group))
	flow, ok, err := i.dp.Flow(key)
	if err == nil && ok && flow.Dir[from].VM != n.id {
		return nil, key, errors.New("the flow is another VM's")
	}
	if err == nil && !ok && len(a.SrcMAC) == 0 {
		return nil, key, errors.New("no such flow is known, and the engine does not say whose frame it was")
	}
	if err == nil && ok {
		if p, _, known := i.effects.owners.get(flow.Dir[from].Owner); known {
			return &p, key, nil
		}
	}
	if !n.hasMemory() {
		return nil, key, errors.New("the VM's memory is not declared")
	}
	if !i.repeats.mayTrace(n.name) {
		return nil, key, errors.New("too many alerts of the VM in this second")
	}
	ctx, cancel := context.WithTimeout(context.Background(), s.cfg.Decision.Deadline)
	defer cancel()
	owner := s.guests[n.name].owner(ctx, a.Proto, a.Src, a.Dst, s.cfg.Decision.AttributionAge)
	if owner.State != verdict.OwnerKnown {
		return nil, key, errors.New(owner.Detail)
	}
	return &owner.Processes[0], key, nil
}

// endFlow drops a flow whose process is not known, or brings it back to the IDS: the
// alert is at least about the flow.
func (i *ids) endFlow(key loader.FlowKey, wanted verdict.Verdict) {
	flow, ok, err := i.dp.Flow(key)
	if err == nil && ok && flow.Verdict != uint32(verdict.Drop) {
		if wanted == verdict.Drop {
			flow.Expires = loader.Now() + uint64(10*time.Minute)
		}
		flow.Verdict, flow.Cause = max(flow.Verdict, uint32(wanted)), uint32(verdict.CauseAlert)
		flow.Cleared = false
		same := func(f loader.Flow) bool { return f.Created == flow.Created && f.Dir[0].SrcMAC == flow.Dir[0].SrcMAC }
		err = i.effects.clear.during(same, "an alert about it", func() error { return i.dp.PutFlow(key, flow) })
	}
	if err != nil {
		i.log.Error("cannot end a flow with an alert", "flow", key, "error", err)
	}
}
