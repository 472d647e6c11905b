package bpf_test

import (
	"testing"

	"github.com/google/gopacket/layers"

	"github.com/vmgate/vmgate/bpf"
)

var (
	overBudget  = dropped(bpf.VmgateReasonREASON_DROP_BUDGET)
	undecidable = dropped(bpf.VmgateReasonREASON_DROP_UNDECIDABLE)
)

func TestPunt_MakesAnEntryThatTellsTheDaemonAll(t *testing.T) {
	bothPaths(t, testPunt_MakesAnEntryThatTellsTheDaemonAll)
}

func testPunt_MakesAnEntryThatTellsTheDaemonAll(t *testing.T, g *gateway) {
	frame := tcpApp1ToWeb(tcp(40000, 80, syn(4711))).build(t)
	before := now()
	g.expect(frame, punted())
	key, from := keyOf(6, 0, app1, 40000, web, 80)
	p := g.pending(key)
	if p == nil {
		t.Fatal("no pending entry")
	}
	if p.FirstSeen+second/10 < before || p.FirstSeen > now() || p.LastSeen != p.FirstSeen {
		t.Errorf("seen at %d and %d, now %d", p.FirstSeen, p.LastSeen, before)
	}
	want := bpf.VmgatePending{
		FirstSeen: p.FirstSeen, LastSeen: p.LastSeen, Punted: 1,
		Vm: [2]uint32{idApp1, idWeb}, InPort: portApp, OutPort: portWeb,
		SrcMac: [6]byte(macApp1), DstMac: [6]byte(macWeb),
		SynSeq: be32(4711), From: uint32(from), TcpFlags: 2, FrameLen: uint32(len(frame)),
	}
	if *p != want {
		t.Errorf("got  %+v\nwant %+v", *p, want)
	}
}

func TestPunt_OnlySoManyPacketsOfAFlowAreHeld(t *testing.T) {
	bothPaths(t, testPunt_OnlySoManyPacketsOfAFlowAreHeld)
}

func testPunt_OnlySoManyPacketsOfAFlowAreHeld(t *testing.T, g *gateway) {
	frame := udpApp1ToWeb(1, 2).build(t)
	held := dropped(bpf.VmgateReasonREASON_DROP_HELD)
	g.expect(frame, punted())
	g.expect(frame, punted())
	g.expect(frame, held)
	g.webSide().expect(udpApp1ToWeb(1, 2).reversed(&layers.UDP{SrcPort: 2, DstPort: 1}).build(t), held)
	key, _ := keyOf(17, 0, app1, 1, web, 2)
	if p := g.pending(key); p.Punted != 2 {
		t.Errorf("punted %d, want 2", p.Punted)
	}
	g.expect(udpApp1ToWeb(3, 2).build(t), punted()) // another flow

	g.set(func(s *bpf.VmgateSettings) { s.HeldPerFlow = 0 })
	g.expect(udpApp1ToWeb(5, 2).build(t), held)
}

func TestPunt_AForgottenEntryIsMadeAnew(t *testing.T) {
	bothPaths(t, testPunt_AForgottenEntryIsMadeAnew)
}

func testPunt_AForgottenEntryIsMadeAnew(t *testing.T, g *gateway) {
	key, _ := keyOf(17, 0, app1, 1, web, 2)
	g.put("pending", key, bpf.VmgatePending{FirstSeen: now() - 11*second, Punted: 2, OutPort: 9})
	g.expect(udpApp1ToWeb(1, 2).build(t), punted())
	if p := g.pending(key); p.Punted != 1 || p.OutPort != portWeb || now()-p.FirstSeen > second {
		t.Errorf("pending %+v", p)
	}
}

func TestPunt_TellsTheVLANInTheMark(t *testing.T) { bothPaths(t, testPunt_TellsTheVLANInTheMark) }

func testPunt_TellsTheVLANInTheMark(t *testing.T, g *gateway) {
	g.macAt(5<<16, macApp1, idApp1, portApp)
	g.macAt(5<<16, macWeb, idWeb, portWeb)
	g.expect(udpApp1ToWeb(1, 2).with(func(p *packet) { p.tags = vlan(5) }).build(t), puntedWith(5))
	key, _ := keyOf(17, 5<<16, app1, 1, web, 2)
	if g.pending(key) == nil {
		t.Error("no pending entry under the VLAN")
	}
}

func TestPunt_WhatCannotBeQueuedIsReportedAndDropped(t *testing.T) {
	bothPaths(t, testPunt_WhatCannotBeQueuedIsReportedAndDropped)
}

func testPunt_WhatCannotBeQueuedIsReportedAndDropped(t *testing.T, g *gateway) {
	events := g.events()
	for _, v := range []uint32{5 << 16, 5<<16 | 6} {
		g.macAt(v, macApp1, idApp1, portApp)
		g.macAt(v, macWeb, idWeb, portWeb)
	}
	for name, c := range map[string]struct {
		tags  []layers.Dot1Q
		outer layers.EthernetType
		vlan  uint32
	}{
		"two tags":    {vlan(5, 6), 0, 5<<16 | 6},
		"service tag": {vlan(5), layers.EthernetTypeQinQ, 5 << 16},
	} {
		t.Run(name, func(t *testing.T) {
			g := g.in(t)
			frame := udpApp1ToWeb(1, 2).with(func(p *packet) { p.tags, p.outerType = c.tags, c.outer }).build(t)
			g.expect(frame, undecidable)
			g.expect(frame, undecidable)
			key, from := keyOf(17, c.vlan, app1, 1, web, 2)
			if g.pending(key) == nil {
				t.Error("no pending entry")
			}
			ev := events()
			if len(ev) != 1 || ev[0].Type != bpf.VmgateEventTypeEVENT_UNDECIDED || ev[0].Key != key || ev[0].From != uint32(from) {
				t.Errorf("events %+v", ev)
			}
			g.decide(17, c.vlan, app1, 1, web, 2, nil) // the sender's retry
			g.expect(frame, forwardedTo(portWeb))
		})
	}
}

func TestBudget_AFloodTowardsOneLeavesRoomForOthers(t *testing.T) {
	bothPaths(t, testBudget_AFloodTowardsOneLeavesRoomForOthers)
}

func testBudget_AFloodTowardsOneLeavesRoomForOthers(t *testing.T, g *gateway) {
	g.vm(idApp1, func(vm *bpf.VmgateVm) { vm.Budget = 5 })
	passed := 0
	for sport := range uint16(50) {
		o := g.run(udpApp1ToWeb(1000+sport, 80).build(t))
		if o.action == xdpPass {
			passed++
		} else if o.counted[bpf.VmgateReasonREASON_DROP_BUDGET].Packets != 1 {
			t.Fatalf("counted %v", o.counted)
		}
	}
	if passed < 5 || passed > 10 { // a slow machine refills the bucket meanwhile
		t.Errorf("%d flows of 50 went up, want the burst of 5", passed)
	}
	others := 0
	for dport := range uint16(15) {
		if g.run(udpApp1ToWeb(1000, 100+dport).build(t)).action == xdpPass {
			others++
		}
	}
	if others < 10 {
		t.Errorf("%d of 15 other destinations went up", others)
	}
	// The VM beside it has a budget of its own.
	g.portFlags(portApp, bpf.VmgatePortFlagPORT_REFLECT)
	g.expect(udpApp1ToWeb(1, 80).with(func(p *packet) { p.srcMAC, p.src = macApp2, app2 }).build(t), punted())
}

func TestBudget_RefillsWithTime(t *testing.T) { bothPaths(t, testBudget_RefillsWithTime) }

func testBudget_RefillsWithTime(t *testing.T, g *gateway) {
	g.vm(idApp1, func(vm *bpf.VmgateVm) { vm.Budget = 1 })
	g.expect(udpApp1ToWeb(1, 80).build(t), punted())
	g.expect(udpApp1ToWeb(2, 80).build(t), overBudget)
	var spent bpf.VmgateBudget
	it := g.maps["budgets"].Iterate()
	var index uint32
	for it.Next(&index, &spent) {
		if spent.FullAt != 0 {
			spent.FullAt -= second // as if a second had passed
			g.put("budgets", index, spent)
		}
	}
	g.expect(udpApp1ToWeb(2, 80).build(t), punted())
}

func TestPortVerdict(t *testing.T) { bothPaths(t, testPortVerdict) }

func testPortVerdict(t *testing.T, g *gateway) {
	frame := udpApp1ToWeb(4000, 53).build(t)
	for name, c := range map[string]struct {
		vm    uint32
		port  uint16
		proto uint8
		entry bpf.VmgateVerdictEntry
		want  want
	}{
		"the sender's port is condemned":      {idApp1, 4000, 17, bpf.VmgateVerdictEntry{Verdict: drop}, cutOff},
		"the receiver's port is condemned":    {idWeb, 53, 17, bpf.VmgateVerdictEntry{Verdict: drop}, cutOff},
		"until later":                         {idApp1, 4000, 17, bpf.VmgateVerdictEntry{Verdict: drop, Expires: now() + 100*second}, cutOff},
		"it has expired":                      {idApp1, 4000, 17, bpf.VmgateVerdictEntry{Verdict: drop, Expires: 1}, punted()},
		"another protocol's port":             {idApp1, 4000, 6, bpf.VmgateVerdictEntry{Verdict: drop}, punted()},
		"the other end has the number":        {idApp1, 53, 17, bpf.VmgateVerdictEntry{Verdict: drop}, punted()},
		"to be checked: the daemon weighs it": {idApp1, 4000, 17, bpf.VmgateVerdictEntry{Verdict: check}, punted()},
		"forward: the daemon weighs it":       {idApp1, 4000, 17, bpf.VmgateVerdictEntry{Verdict: forward}, punted()},
	} {
		t.Run(name, func(t *testing.T) {
			g := g.in(t)
			g.empty("verdicts")
			g.empty("pending")
			g.put("verdicts", bpf.VmgateVerdictKey{Vm: c.vm, Port: c.port, Proto: c.proto}, c.entry)
			g.expect(frame, c.want)
		})
	}
}

func TestDestination(t *testing.T) { bothPaths(t, testDestination) }

func testDestination(t *testing.T, g *gateway) {
	toApp2 := udpApp1ToWeb(1, 2).with(func(p *packet) { p.dstMAC, p.dst = macApp2, app2 })
	g.expect(udpApp1ToWeb(1, 2).with(func(p *packet) { p.dstMAC = macNobody }).build(t), unknownDst)
	g.expect(toApp2.build(t), unknownDst) // the vSwitch has delivered it
	g.portFlags(portApp, bpf.VmgatePortFlagPORT_REFLECT)
	g.expect(toApp2.build(t), punted())
	g.decide(17, 0, app1, 1, app2, 2, func(f *bpf.VmgateFlow) {
		d := &f.Dir[f.Initiator]
		d.DstMac, d.OutPort = [6]byte(macApp2), portApp
	})
	g.expect(toApp2.build(t), forwardedTo(portApp)) // back out of the port it came by
}

func TestDaemonSilent(t *testing.T) { bothPaths(t, testDaemonSilent) }

func testDaemonSilent(t *testing.T, g *gateway) {
	fresh := tcpApp1ToWeb(tcp(1, 80, syn(1)))
	g.decide(6, 0, app1, 40000, web, 80, nil)
	down := dropped(bpf.VmgateReasonREASON_DROP_DAEMON_DOWN)
	for _, at := range []uint64{0, now() - 4*second} {
		g.beat(at)
		g.set(func(*bpf.VmgateSettings) {})
		g.expect(fresh.build(t), down)
		g.expect(tcpApp1ToWeb(tcp(40000, 80, ack)).build(t), forwardedTo(portWeb))
		g.set(func(s *bpf.VmgateSettings) { s.NewFlowsOpen = 1 })
		g.expect(fresh.build(t), redirected(portWeb, bpf.VmgateReasonREASON_OPEN))
		g.expect(fresh.with(func(p *packet) { p.src = app2 }).build(t), spoofed)
		g.expect(fresh.with(func(p *packet) { p.dstMAC = macNobody }).build(t), unknownDst)
		g.rule(drop)
		g.expect(tcpApp1ToWeb(tcp(40000, 80, ack)).build(t), cutOff)
		g.rule(forward)
	}
	g.vmVerdict(idApp1, check) // open is no way round an inspection
	g.expect(fresh.build(t), checkedBy(portIDSIn))
	g.vmVerdict(idApp1, forward)
	g.put("verdicts", bpf.VmgateVerdictKey{Vm: idApp1, Port: 1, Proto: 6}, bpf.VmgateVerdictEntry{Verdict: drop})
	g.expect(fresh.build(t), cutOff)
	g.beat(now() + second/100) // the daemon's clock is finer than ours
	g.expect(tcpApp1ToWeb(tcp(2, 80, syn(1))).build(t), punted())
}
