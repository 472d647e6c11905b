package bpf_test

import (
	"testing"

	"github.com/vmgate/vmgate/bpf"
)

var (
	monitored = redirected(portWeb, bpf.VmgateReasonREASON_MONITOR)
	opened    = redirected(portWeb, bpf.VmgateReasonREASON_OPEN)
	idsDown   = dropped(bpf.VmgateReasonREASON_DROP_IDS_DOWN)
	openUp    = want{action: xdpPass, reason: bpf.VmgateReasonREASON_OPEN, mark: bpf.VmgateMarkMARK_OPEN}
)

func TestMonitor_ForwardsWhatItWouldHaveStopped(t *testing.T) {
	bothPaths(t, testMonitor_ForwardsWhatItWouldHaveStopped)
}

func testMonitor_ForwardsWhatItWouldHaveStopped(t *testing.T, g *gateway) {
	g.mode(bpf.VmgateModeMODE_MONITOR)
	frame := tcpApp1ToWeb(tcp(40000, 80, ack)).build(t)
	g.decide(6, 0, app1, 40000, web, 80, nil)
	g.expect(frame, forwardedTo(portWeb))
	for _, v := range []bpf.VmgateVerdict{check, drop} {
		g.rule(v)
		g.expect(frame, monitored)
		g.rule(forward)
	}
	g.vmVerdict(idApp1, drop)
	g.expect(frame, monitored)
	question := arp(macApp1, broadcast, 1, macApp1, app1, nil, web).build(t)
	g.expect(question, monitored.rewritten(question, macWeb))
	g.expect(tcpApp1ToWeb(tcp(1, 80, syn(1))).build(t), punted()) // still decided
	g.put("verdicts", bpf.VmgateVerdictKey{Vm: idApp1, Port: 2, Proto: 6}, bpf.VmgateVerdictEntry{Verdict: drop})
	g.expect(tcpApp1ToWeb(tcp(2, 80, syn(1))).build(t), punted())
}

func TestClose_NothingPasses(t *testing.T) { bothPaths(t, testClose_NothingPasses) }

func testClose_NothingPasses(t *testing.T, g *gateway) {
	g.decide(6, 0, app1, 40000, web, 80, nil)
	g.mode(bpf.VmgateModeMODE_CLOSE)
	g.expect(tcpApp1ToWeb(tcp(40000, 80, ack)).build(t), cutOff)
	g.expect(tcpApp1ToWeb(tcp(1, 80, syn(1))).build(t), cutOff)
	g.expect(arp(macApp1, broadcast, 1, macApp1, app1, nil, web).build(t), cutOff)
	g.ids(portIDSOut).expect(tcpApp1ToWeb(tcp(40000, 80, ack)).build(t), cutOff)
}

func TestOpen_EverythingPasses(t *testing.T) { bothPaths(t, testOpen_EverythingPasses) }

func testOpen_EverythingPasses(t *testing.T, g *gateway) {
	g.mode(bpf.VmgateModeMODE_OPEN)
	g.vmVerdict(idApp1, drop)
	g.beat(0)
	frame := tcpApp1ToWeb(tcp(1, 80, syn(1)))
	g.expect(frame.build(t), opened)
	g.expect(frame.with(func(p *packet) { p.src = app2 }).build(t), opened)
	g.expect(frame.with(func(p *packet) { p.dstMAC = macNobody }).build(t), openUp)
	g.expect(arp(macApp1, broadcast, 1, macApp1, app1, nil, web).build(t), openUp)
}

func TestIDSState(t *testing.T) { bothPaths(t, testIDSState) }

func testIDSState(t *testing.T, g *gateway) {
	frame := tcpApp1ToWeb(tcp(40000, 80, ack)).build(t)
	g.decide(6, 0, app1, 40000, web, 80, nil)
	g.rule(check)
	for name, c := range map[string]struct {
		set  func(*bpf.VmgateSettings)
		want want
	}{
		"up":               {func(*bpf.VmgateSettings) {}, checkedBy(portIDSIn)},
		"down, closed":     {func(s *bpf.VmgateSettings) { s.Ids[0].State = bpf.VmgateIdsStateIDS_DOWN_CLOSED }, idsDown},
		"down, open":       {func(s *bpf.VmgateSettings) { s.Ids[0].State = bpf.VmgateIdsStateIDS_DOWN_OPEN }, opened},
		"an unknown state": {func(s *bpf.VmgateSettings) { s.Ids[0].State = 77 }, idsDown},
		"no port":          {func(s *bpf.VmgateSettings) { s.Ids[0].In = 0 }, idsDown},
	} {
		t.Run(name, func(t *testing.T) {
			g := g.in(t)
			g.set(c.set)
			g.expect(frame, c.want)
		})
	}
}

func TestRedirect_ToAPortWithoutDeviceIsCounted(t *testing.T) {
	bothPaths(t, testRedirect_ToAPortWithoutDeviceIsCounted)
}

func testRedirect_ToAPortWithoutDeviceIsCounted(t *testing.T, g *gateway) {
	g.decide(6, 0, app1, 40000, web, 80, nil)
	g.device(portWeb, 0)
	if err := g.maps["tx_ports"].Delete(uint32(portWeb)); err != nil {
		t.Fatal(err)
	}
	g.expect(tcpApp1ToWeb(tcp(40000, 80, ack)).build(t), unknownDst)
}

func TestIDSReturn(t *testing.T) { bothPaths(t, testIDSReturn) }

func testIDSReturn(t *testing.T, g *gateway) {
	events := dropped(bpf.VmgateReasonREASON_DROP_IDS_LOOP)
	returned := redirected(portWeb, bpf.VmgateReasonREASON_IDS_RETURN)
	g.macAt(5<<16, macApp1, idApp1, portApp)
	g.macAt(5<<16, macWeb, idWeb, portWeb)
	g.macAt(0, mac("02:00:00:00:0a:00"), idWeb, portIDSIn) // a false entry
	plain := tcpApp1ToWeb(tcp(40000, 80, ack))
	for _, side := range []uint32{portIDSIn, portIDSOut} {
		i := g.ids(side)
		for name, c := range map[string]struct {
			frame   frame
			want    want
			prepare func(*gateway)
		}{
			"a checked flow's packet":             {frame: plain, want: returned},
			"it is never checked again":           {frame: plain, want: returned, prepare: func(g *gateway) { g.rule(check) }},
			"of a flow not yet written":           {frame: tcpApp1ToWeb(tcp(5, 80, syn(1))), want: returned},
			"tagged":                              {frame: plain.with(func(p *packet) { p.tags = vlan(5) }), want: returned},
			"the other direction":                 {frame: plain.reversed(tcp(80, 40000, ack)), want: redirected(portApp, bpf.VmgateReasonREASON_IDS_RETURN)},
			"a unicast ARP":                       {frame: arp(macApp1, macWeb, 2, macApp1, app1, macWeb, web), want: returned},
			"convicted meanwhile":                 {frame: plain, want: cutOff, prepare: func(g *gateway) { g.owner(ownerApp, drop) }},
			"convicted, but monitoring":           {frame: plain, want: returned, prepare: func(g *gateway) { g.owner(ownerApp, drop); g.mode(bpf.VmgateModeMODE_MONITOR) }},
			"sender isolated meanwhile":           {frame: plain, want: cutOff, prepare: func(g *gateway) { g.vmVerdict(idApp1, drop) }},
			"receiver isolated meanwhile":         {frame: plain, want: cutOff, prepare: func(g *gateway) { g.vmVerdict(idWeb, drop) }},
			"from a MAC that nobody has":          {frame: plain.with(func(p *packet) { p.srcMAC = macNobody }), want: dropped(bpf.VmgateReasonREASON_DROP_UNKNOWN_SOURCE)},
			"to a MAC that nobody has":            {frame: plain.with(func(p *packet) { p.dstMAC = macNobody }), want: unknownDst},
			"a broadcast":                         {frame: arp(macApp1, broadcast, 1, macApp1, app1, nil, web), want: events},
			"a multicast":                         {frame: plain.with(func(p *packet) { p.dstMAC = mac("01:00:5e:00:00:01") }), want: events},
			"a destination that is an IDS port":   {frame: plain.with(func(p *packet) { p.dstMAC = mac("02:00:00:00:0a:00") }), want: events},
			"the IDS says hello with a third tag": {frame: plain.with(func(p *packet) { p.tags = vlan(1, 2, 3) }), want: unparsed},
		} {
			t.Run(name, func(t *testing.T) {
				g, i := g.in(t), i.in(t)
				g.populate()
				key := g.decide(6, 0, app1, 40000, web, 80, nil)
				if c.prepare != nil {
					c.prepare(g)
				}
				i.expect(c.frame.build(t), c.want)
				if f := g.flow(key); f.Dir[0].Packets+f.Dir[1].Packets != 0 {
					t.Error("the packet was counted in its flow a second time")
				}
			})
		}
	}
}

func TestPass(t *testing.T) { bothPaths(t, testPass) }

func testPass(t *testing.T, g *gateway) {
	frame := tcpApp1ToWeb(tcp(1, 80, syn(1))).build(t)
	action, out, err := g.progs["vmgate_pass"].Test(frame)
	if err != nil || action != xdpPass || string(out) != string(frame) {
		t.Errorf("action %d, %v", action, err)
	}
}
