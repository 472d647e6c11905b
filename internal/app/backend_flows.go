package app

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	"github.com/vmgate/vmgate/internal/api"
	"github.com/vmgate/vmgate/pkg/loader"
	"github.com/vmgate/vmgate/pkg/verdict"
)

// maxListed bounds the flows and verdicts in one answer.
const maxListed = 100_000

// Flows implements api.Backend.
func (b backend) Flows(context.Context) ([]api.Flow, error) {
	s := b.state.Load()
	var flows []api.Flow
	entries := b.dp.Flows()
	for key, flow := range entries.All() {
		if len(flows) == maxListed {
			break
		}
		if !flowEnded(key.Proto(), flow, loader.Now()) {
			flows = append(flows, b.describeFlow(s, key, flow))
		}
	}
	return flows, entries.Err()
}

func (b backend) describeFlow(s *state, key loader.FlowKey, flow loader.Flow) api.Flow {
	standing, err := b.effects.strictest(flow)
	if err != nil {
		b.log.Error("cannot read the verdicts on a flow", "flow", key, "error", err)
	}
	rule, _ := b.rules.get(flow.Rule)
	end := func(i int) api.FlowEnd {
		dir := flow.Dir[i]
		e := api.FlowEnd{Addr: key.Addr(i).Addr().String(), Port: key.Addr(i).Port(), Packets: dir.Packets, Bytes: dir.Bytes}
		if n := s.inv.byID[dir.VM]; n != nil {
			e.VM = n.name
		}
		if p, _, ok := b.owners.get(dir.Owner); ok {
			e.Process = &p
		}
		return e
	}
	described := api.Flow{
		Proto: api.ProtoName(key.Proto()), Src: end(flow.Initiator), Dst: end(1 - flow.Initiator),
		Verdict: standing.Verdict.String(), Cause: standing.Cause.String(), Rule: rule,
		Age: age(flow.Created), Idle: age(max(flow.Created, flow.Dir[0].LastSeen, flow.Dir[1].LastSeen)),
	}
	if outer, inner := key.VLAN(); inner != 0 {
		described.VLAN = fmt.Sprintf("%d.%d", outer, inner)
	} else if outer != 0 {
		described.VLAN = fmt.Sprint(outer)
	}
	return described
}

// Verdicts implements api.Backend.
func (b backend) Verdicts(context.Context) ([]api.PortVerdict, error) {
	s := b.state.Load()
	var verdicts []api.PortVerdict
	entries := b.dp.Verdicts()
	for key, entry := range entries.All() {
		if len(verdicts) == maxListed {
			break
		}
		v := api.PortVerdict{
			Port:     api.Port{Proto: api.ProtoName(key.Proto), Port: key.Port},
			Verdict:  verdict.Verdict(entry.Verdict).String(),
			Cause:    verdict.Cause(entry.Cause).String(),
			Observed: wallClock(entry.Observed),
		}
		if n := s.inv.byID[key.VM]; n != nil {
			v.VM = n.name
		}
		if p, _, ok := b.owners.get(entry.Owner); ok {
			v.Owner = &p
		}
		if entry.Expires != 0 {
			expires := wallClock(entry.Expires)
			v.Expires = &expires
		}
		verdicts = append(verdicts, v)
	}
	return verdicts, entries.Err()
}

// wallClock turns a monotonic time of the kernel into the time of day.
func wallClock(mono uint64) time.Time {
	return time.Now().Add(time.Duration(mono - loader.Now()))
}

// SetVerdict implements api.Backend.
func (b backend) SetVerdict(_ context.Context, change api.VerdictChange) error {
	key, err := b.verdictKey(change.Port)
	if err != nil {
		return err
	}
	v, err := verdict.ParseVerdict(change.Verdict)
	if err != nil {
		return fmt.Errorf("%w: %w", api.ErrInvalid, err)
	}
	entry := loader.VerdictEntry{Verdict: uint32(v), Cause: uint32(verdict.CauseOperator), Observed: loader.Now()}
	if change.For > 0 {
		entry.Expires = entry.Observed + uint64(change.For)
	}
	if err := b.dp.PutVerdict(key, entry); err != nil {
		return err
	}
	b.journal.note("operator", fmt.Sprintf("verdict %s on %s %s/%d by %s", v, change.VM, change.Proto, change.Port.Port, change.By))
	return b.endFlowsOf(key)
}

// DeleteVerdict implements api.Backend.
func (b backend) DeleteVerdict(_ context.Context, port api.Port) error {
	key, err := b.verdictKey(port)
	if err != nil {
		return err
	}
	entries := b.dp.Verdicts()
	for known := range entries.All() {
		if known == key {
			return b.dp.DeleteVerdict(key)
		}
	}
	return fmt.Errorf("%w: there is no verdict on %s %s/%d", api.ErrNotFound, port.VM, port.Proto, port.Port)
}

func (b backend) verdictKey(port api.Port) (loader.VerdictKey, error) {
	n := b.state.Load().inv.byName[port.VM]
	if n == nil {
		return loader.VerdictKey{}, fmt.Errorf("%w: there is no VM %q in the inventory", api.ErrNotFound, port.VM)
	}
	proto, err := api.ParseProto(port.Proto)
	if err != nil {
		return loader.VerdictKey{}, err
	}
	if !verdict.HasPorts(proto) {
		return loader.VerdictKey{}, fmt.Errorf("%w: %s has no ports", api.ErrInvalid, port.Proto)
	}
	return loader.VerdictKey{VM: n.id, Proto: proto, Port: port.Port}, nil
}

// endFlowsOf has the flows of a port decided anew, so that a verdict set by
// hand reaches them as well.
func (b backend) endFlowsOf(port loader.VerdictKey) error {
	flows := b.dp.Flows()
	for key, flow := range flows.All() {
		for i, dir := range flow.Dir {
			if dir.VM == port.VM && key.Proto() == port.Proto && key.Addr(i).Port() == port.Port {
				if err := b.dp.DeleteFlow(key); err != nil {
					return err
				}
			}
		}
	}
	return flows.Err()
}

// Explain implements api.Backend.
func (b backend) Explain(ctx context.Context, t api.Tuple) (api.Explanation, error) {
	s := b.state.Load()
	flow, err := s.flowOf(t)
	if err != nil {
		return api.Explanation{}, err
	}
	ctx, cancel := context.WithTimeout(ctx, max(s.cfg.Decision.Deadline, time.Second))
	defer cancel()
	answer := api.Explanation{
		Flow:     flow,
		SrcOwner: s.ownerOf(ctx, flow.Src, flow.Dst, flow.Proto),
		DstOwner: s.ownerOf(ctx, flow.Dst, flow.Src, flow.Proto),
	}
	answer.Decision = b.book.Preview(s.policy, verdict.Request{
		Flow: flow, SrcOwner: answer.SrcOwner, DstOwner: answer.DstOwner, Now: time.Now(),
	})
	answer.Verdict, answer.Cause, answer.Rule = answer.Decision.Verdict.String(), answer.Decision.Cause.String(), answer.Decision.Rule
	answer.Location = b.opt.ConfigPath
	if answer.Decision.Line != 0 {
		answer.Location += fmt.Sprintf(":%d", answer.Decision.Line)
	}
	answer.Notes = s.notes(flow, answer.Decision)
	b.explainStanding(s, &answer)
	return answer, nil
}

// explainStanding replaces the answer by what stands, if the flow is decided.
func (b backend) explainStanding(s *state, answer *api.Explanation) {
	f := answer.Flow
	var group uint32
	if n := s.inv.byName[f.Src.VM+f.Src.Router]; n != nil {
		group = n.segment.group
	}
	key, _ := loader.NewFlowKey(f.Proto, addrPort(f.Src), addrPort(f.Dst), f.VLAN, f.Inner, uint8(group))
	flow, ok, err := b.dp.Flow(key)
	if err != nil || !ok || flowEnded(f.Proto, flow, loader.Now()) {
		return
	}
	standing, err := b.effects.strictest(flow)
	if err != nil || standing.Verdict == verdict.Undecided {
		return
	}
	answer.InMap = true
	answer.Verdict, answer.Cause = standing.Verdict.String(), standing.Cause.String()
	answer.Notes = append(answer.Notes, "the flow is decided: its packets follow what stands in the maps")
}

// flowOf finds the ends of a tuple in the inventory.
func (s *state) flowOf(t api.Tuple) (verdict.Flow, error) {
	proto, err := api.ParseProto(t.Proto)
	if err != nil {
		return verdict.Flow{}, err
	}
	src, err1 := netip.ParseAddr(t.Src)
	dst, err2 := netip.ParseAddr(t.Dst)
	switch {
	case err1 != nil:
		return verdict.Flow{}, fmt.Errorf("%w: %q is no address", api.ErrInvalid, t.Src)
	case err2 != nil:
		return verdict.Flow{}, fmt.Errorf("%w: %q is no address", api.ErrInvalid, t.Dst)
	}
	return verdict.Flow{
		Src:   endpoint(s.nodeFor(src), netip.AddrPortFrom(src, t.SrcPort)),
		Dst:   endpoint(s.nodeFor(dst), netip.AddrPortFrom(dst, t.DstPort)),
		Proto: proto,
	}, nil
}

// nodeFor finds the node that has an address, or else the router that it must
// lie behind, if there is only one.
func (s *state) nodeFor(addr netip.Addr) *node {
	if n := s.inv.byAddress(addr); n != nil {
		return n
	}
	var router *node
	for _, n := range s.inv.byID {
		if n.router != nil {
			if router != nil {
				return nil
			}
			router = n
		}
	}
	return router
}

// notes says what people would miss in an explanation.
func (s *state) notes(f verdict.Flow, d verdict.Decision) []string {
	var notes []string
	for _, e := range []verdict.Endpoint{f.Src, f.Dst} {
		if e.VM == "" && e.Router == "" {
			notes = append(notes, fmt.Sprintf("%s is nobody's address in the inventory: a frame from it is dropped as a spoof, one to it has no destination", e.Addr))
		}
	}
	if f.Src.Segment != "" && f.Src.Segment == f.Dst.Segment && !s.reflects(f.Src.Segment) {
		notes = append(notes, fmt.Sprintf("both ends lie in segment %s, which does not reflect: their vSwitch delivers the frames itself", f.Src.Segment))
	}
	if s.monitor() && d.Verdict != verdict.Forward {
		notes = append(notes, "enforcement is monitor: the packet would be forwarded all the same")
	}
	if d.Rule == verdict.DefaultRule {
		notes = append(notes, fmt.Sprintf("no rule matches: the default (%s) applies", s.cfg.Policy.Default))
	}
	return notes
}

func (s *state) reflects(segment string) bool {
	for _, seg := range s.inv.segments {
		if seg.Name == segment {
			return seg.Reflect
		}
	}
	return false
}
