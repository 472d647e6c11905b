package bpf_test

import (
	"net/netip"
	"testing"

	"github.com/vmgate/vmgate/bpf"
	"github.com/vmgate/vmgate/pkg/loader"
)

// twoEngines shares the flows: odd slots are the second engine's.
func twoEngines(s *bpf.VmgateSettings) {
	s.Ids[1].In, s.Ids[1].Out = otherIn, otherOut
	for slot := range s.IdsSlot {
		s.IdsSlot[slot] = uint8(slot % 2)
	}
}

// TestShare_BothDirectionsOfAFlowMeetInOneEngine: the one that the daemon would name,
// too, and every engine has its share.
func TestShare_BothDirectionsOfAFlowMeetInOneEngine(t *testing.T) {
	bothPaths(t, testShare_BothDirectionsOfAFlowMeetInOneEngine)
}

func testShare_BothDirectionsOfAFlowMeetInOneEngine(t *testing.T, g *gateway) {
	w := g.webSide()
	g.set(twoEngines)
	g.rule(check)
	ins, outs := [2]uint32{portIDSIn, otherIn}, [2]uint32{portIDSOut, otherOut}
	shares := [2]int{}
	const flows = 64
	for i := range uint16(flows) {
		there := tcpApp1ToWeb(tcp(40000+i, 80, ack))
		g.decide(6, 0, app1, 40000+i, web, 80, nil)
		key, _ := loader.NewFlowKey(6, netip.AddrPortFrom(app1, 40000+i), netip.AddrPortFrom(web, 80), 0, 0, group)
		engine := key.IDSSlot() % 2
		shares[engine]++
		g.expect(there.build(t), checkedBy(ins[engine]))
		w.expect(there.reversed(tcp(80, 40000+i, ack)).build(t), checkedBy(outs[engine]))
	}
	if shares[0] < flows/4 || shares[1] < flows/4 {
		t.Errorf("of %d flows the engines have %v", flows, shares)
	}
}

func TestShare_ADeadEngineConcernsItsOwnFlows(t *testing.T) {
	bothPaths(t, testShare_ADeadEngineConcernsItsOwnFlows)
}

func testShare_ADeadEngineConcernsItsOwnFlows(t *testing.T, g *gateway) {
	frame := tcpApp1ToWeb(tcp(40000, 80, ack)).build(t)
	key, _ := loader.NewFlowKey(6, netip.AddrPortFrom(app1, 40000), netip.AddrPortFrom(web, 80), 0, 0, group)
	g.rule(check)
	g.decide(6, 0, app1, 40000, web, 80, nil)
	share := func(its uint8, state bpf.VmgateIdsState) {
		g.set(func(s *bpf.VmgateSettings) {
			twoEngines(s)
			s.Ids[1].State = state
			for slot := range s.IdsSlot {
				s.IdsSlot[slot] = 1 - its
			}
			s.IdsSlot[key.IDSSlot()] = its
		})
	}
	closed, open := bpf.VmgateIdsStateIDS_DOWN_CLOSED, bpf.VmgateIdsStateIDS_DOWN_OPEN
	share(1, closed)
	g.expect(frame, dropped(bpf.VmgateReasonREASON_DROP_IDS_DOWN))
	share(1, open)
	g.expect(frame, redirected(portWeb, bpf.VmgateReasonREASON_OPEN))
	share(0, closed)
	g.expect(frame, checkedBy(portIDSIn))
	share(200, closed) // beyond the engines: none is there
	g.set(func(s *bpf.VmgateSettings) { s.Ids[0].In = 0; s.IdsSlot[key.IDSSlot()] = 200 })
	g.expect(frame, dropped(bpf.VmgateReasonREASON_DROP_IDS_DOWN))
}

// TestShare_ReleasedPacketsFollow: egress reads the slot from the daemon's mark.
func TestShare_ReleasedPacketsFollow(t *testing.T) {
	g := newGateway(t)
	frame := tcpApp1ToWeb(tcp(1, 80, syn(1))).build(t)
	g.set(func(s *bpf.VmgateSettings) { twoEngines(s); s.Ids[1].State = bpf.VmgateIdsStateIDS_DOWN_CLOSED })
	for _, mark := range []bpf.VmgateMark{bpf.VmgateMarkMARK_CHECK_IN, bpf.VmgateMarkMARK_CHECK_OUT} {
		g.expectTC("vmgate_egress", frame, mark|6, tcRedirect, bpf.VmgateReasonREASON_EGRESS_CHECK, 0)
		g.expectTC("vmgate_egress", frame, mark|7, tcShot, bpf.VmgateReasonREASON_DROP_IDS_DOWN, mark|7)
	}
}

// TestShare_NothingGoesFromOneEngineToAnother: whatever the inventory says.
func TestShare_NothingGoesFromOneEngineToAnother(t *testing.T) {
	g := newGateway(t)
	g.set(twoEngines)
	for _, false_ := range []uint32{portIDSIn, portIDSOut, otherIn, otherOut} {
		g.macAt(0, macWeb, idWeb, false_)
		g.ids(portIDSIn).expect(tcpApp1ToWeb(tcp(1, 80, ack)).build(t), dropped(bpf.VmgateReasonREASON_DROP_IDS_LOOP))
	}
}
