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
