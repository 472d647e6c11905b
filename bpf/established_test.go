package bpf_test

import (
	"testing"

	"github.com/google/gopacket/layers"

	"github.com/vmgate/vmgate/bpf"
)

const (
	forward   = bpf.VmgateVerdictVERDICT_FORWARD
	check     = bpf.VmgateVerdictVERDICT_CHECK
	drop      = bpf.VmgateVerdictVERDICT_DROP
	undecided = bpf.VmgateVerdictVERDICT_UNDECIDED
)

func (g *gateway) webSide() *gateway {
	g.Helper()
	return g.on(bpf.VmgatePortConfig{Id: portWeb, Segment: portWeb, Group: group})
}

func TestEstablished_FlowsOfEveryShapeAreForwardedBothWays(t *testing.T) {
	bothPaths(t, testEstablished_FlowsOfEveryShapeAreForwardedBothWays)
}

func testEstablished_FlowsOfEveryShapeAreForwardedBothWays(t *testing.T, g *gateway) {
	w := g.webSide()
	for _, v := range []uint32{5 << 16, 0x0fff << 16, 5<<16 | 6} {
		g.macAt(v, macApp1, idApp1, portApp)
		g.macAt(v, macWeb, idWeb, portWeb)
	}
	plain := tcpApp1ToWeb(tcp(40000, 80, ack))
	for name, c := range map[string]struct {
		packet
		vlan uint32
	}{
		"IPv4":                     {plain, 0},
		"IPv6":                     {plain.overIPv6(), 0},
		"one tag":                  {plain.with(func(p *packet) { p.tags = vlan(5) }), 5 << 16},
		"one tag, highest id":      {plain.with(func(p *packet) { p.tags = vlan(0xfff) }), 0xfff << 16},
		"one service tag":          {plain.with(func(p *packet) { p.tags, p.outerType = vlan(5), layers.EthernetTypeQinQ }), 5 << 16},
		"two tags":                 {plain.with(func(p *packet) { p.tags, p.outerType = vlan(5, 6), layers.EthernetTypeQinQ }), 5<<16 | 6},
		"priority tag is untagged": {plain.with(func(p *packet) { p.tags = []layers.Dot1Q{{Priority: 5}} }), 0},
		"IPv6 in one tag":          {plain.overIPv6().with(func(p *packet) { p.tags = vlan(5) }), 5 << 16},
		"IPv4 options": {plain.with(func(p *packet) {
			p.options = []layers.IPv4Option{{OptionType: 1}, {OptionType: 68, OptionLength: 4, OptionData: []byte{5, 0}}}
		}), 0},
		"hop-by-hop and dest opts":  {plain.overIPv6().with(func(p *packet) { p.firstExt, p.extensions = 0, append(ext(60, 0, 8), ext(6, 0, 16)...) }), 0},
		"routing header, none left": {plain.overIPv6().with(func(p *packet) { p.firstExt, p.extensions = 43, ext(6, 4, 8) }), 0},
		"authentication header":     {plain.overIPv6().with(func(p *packet) { p.firstExt, p.extensions = 51, ah(6) }), 0},
	} {
		t.Run(name, func(t *testing.T) {
			g, w := g.in(t), w.in(t)
			g.empty("flows")
			key := g.decide(6, c.vlan, c.src, 40000, c.dst, 80, nil)
			there := c.build(t)
			g.expect(there, forwardedTo(portWeb))
			back := c.reversed(tcp(80, 40000, ack)).build(t)
			w.expect(back, forwardedTo(portApp))

			f := g.flow(key)
			for i, frame := range map[uint32][]byte{f.Initiator: there, 1 - f.Initiator: back} {
				d := f.Dir[i]
				if d.Packets != 1 || d.Bytes != uint64(len(frame)) || d.TcpFlags != 0x10 || now()-d.LastSeen > second {
					t.Errorf("direction %d keeps %+v", i, d)
				}
			}
		})
	}
}

// in returns the gateway with its failures reported to a subtest.
func (g gateway) in(t *testing.T) *gateway {
	g.TB = t
	return &g
}

// ext is an IPv6 extension header of size bytes whose third byte is a type.
func ext(next, kind uint8, size int) []byte {
	h := make([]byte, size)
	h[0], h[1], h[2] = next, uint8(size/8-1), kind
	if kind == 0 { // options: one PadN
		h[2], h[3] = 1, uint8(size-4)
	}
	return h
}

// ah is an IPv6 authentication header with a 12-byte check value.
func ah(next uint8) []byte {
	h := make([]byte, 24)
	h[0], h[1] = next, 4
	return h
}

func TestEstablished_EveryProtocolHasItsKey(t *testing.T) {
	bothPaths(t, testEstablished_EveryProtocolHasItsKey)
}

func testEstablished_EveryProtocolHasItsKey(t *testing.T, g *gateway) {
	udp := udpApp1ToWeb(5000, 53)
	g.decide(17, 0, app1, 5000, web, 53, nil)
	g.expect(udp.build(t), forwardedTo(portWeb))

	g.decide(1, 0, app1, 77, web, 77, nil) // echo: the identifier, twice
	g.expect(echoApp1ToWeb(77).build(t), forwardedTo(portWeb))

	sctp := udp.with(func(p *packet) {
		p.proto, p.l4, p.payload = 132, nil, append([]byte{0x13, 0x88, 0, 53}, make([]byte, 8)...)
	})
	g.decide(132, 0, app1, 5000, web, 53, nil)
	g.expect(sctp.build(t), forwardedTo(portWeb))

	gre := udp.with(func(p *packet) { p.proto, p.l4 = 47, nil })
	g.decide(47, 0, app1, 0, web, 0, nil)
	g.expect(gre.build(t), forwardedTo(portWeb))
}

func TestVerdict_StrictestScopeWins(t *testing.T) { bothPaths(t, testVerdict_StrictestScopeWins) }

func testVerdict_StrictestScopeWins(t *testing.T, g *gateway) {
	w := g.webSide()
	there := tcpApp1ToWeb(tcp(40000, 80, ack))
	back := there.reversed(tcp(80, 40000, ack))
	scopes := map[string]func(*gateway, bpf.VmgateVerdict){
		"sender's VM":      func(g *gateway, v bpf.VmgateVerdict) { g.vmVerdict(idApp1, v) },
		"receiver's VM":    func(g *gateway, v bpf.VmgateVerdict) { g.vmVerdict(idWeb, v) },
		"rule":             func(g *gateway, v bpf.VmgateVerdict) { g.rule(v) },
		"sender's owner":   func(g *gateway, v bpf.VmgateVerdict) { g.owner(ownerApp, v) },
		"receiver's owner": func(g *gateway, v bpf.VmgateVerdict) { g.owner(ownerWeb, v) },
		"flow": func(g *gateway, v bpf.VmgateVerdict) {
			g.decide(6, 0, app1, 40000, web, 80, func(f *bpf.VmgateFlow) { f.Verdict = v })
		},
	}
	for name, scope := range scopes {
		for v, wants := range map[bpf.VmgateVerdict][2]want{
			forward: {forwardedTo(portWeb), forwardedTo(portApp)},
			check:   {checkedBy(portIDSIn), checkedBy(portIDSOut)},
			drop:    {cutOff, cutOff},
			99:      {cutOff, cutOff}, // an unknown number is the strictest
		} {
			t.Run(name+" "+verdictName(v), func(t *testing.T) {
				g, w := g.in(t), w.in(t)
				g.decide(6, 0, app1, 40000, web, 80, nil)
				scope(g, v)
				defer scope(g, forward)
				g.expect(there.build(t), wants[0])
				w.expect(back.build(t), wants[1])
			})
		}
	}
}

func verdictName(v bpf.VmgateVerdict) string {
	return map[bpf.VmgateVerdict]string{forward: "forward", check: "check", drop: "drop", 99: "unknown"}[v]
}

func TestVerdict_AnythingUndecidedIsPuntedUnlessSomethingSaysDrop(t *testing.T) {
	bothPaths(t, testVerdict_AnythingUndecidedIsPuntedUnlessSomethingSaysDrop)
}

func testVerdict_AnythingUndecidedIsPuntedUnlessSomethingSaysDrop(t *testing.T, g *gateway) {
	frame := tcpApp1ToWeb(tcp(40000, 80, ack)).build(t)
	key := g.decide(6, 0, app1, 40000, web, 80, nil)
	g.rule(undecided) // as a policy reload leaves it
	g.owner(ownerApp, check)
	g.expect(frame, punted())
	if g.pending(key) == nil {
		t.Error("no pending entry")
	}
	g.owner(ownerWeb, drop)
	g.expect(frame, cutOff)
	if f := g.flow(key); f.Dir[0].Packets+f.Dir[1].Packets != 1 {
		t.Errorf("the flow counts %d packets, want the dropped one", f.Dir[0].Packets+f.Dir[1].Packets)
	}
}

func TestVerdict_FlowWithoutRuleIsUndecided(t *testing.T) {
	bothPaths(t, testVerdict_FlowWithoutRuleIsUndecided)
}

func testVerdict_FlowWithoutRuleIsUndecided(t *testing.T, g *gateway) {
	g.decide(6, 0, app1, 40000, web, 80, func(f *bpf.VmgateFlow) { f.Rule = 0 })
	g.expect(tcpApp1ToWeb(tcp(40000, 80, ack)).build(t), punted())
}

func TestEstablished_OtherMACsOrPortGoTheSlowPath(t *testing.T) {
	bothPaths(t, testEstablished_OtherMACsOrPortGoTheSlowPath)
}

func testEstablished_OtherMACsOrPortGoTheSlowPath(t *testing.T, g *gateway) {
	frame := tcpApp1ToWeb(tcp(40000, 80, ack))
	for name, c := range map[string]struct {
		frame packet
		flow  func(*bpf.VmgateFlow)
		want  want
	}{
		"another's source MAC":      {frame.with(func(p *packet) { p.srcMAC = macApp2 }), nil, spoofed},
		"unknown source MAC":        {frame.with(func(p *packet) { p.srcMAC = macNobody }), nil, dropped(bpf.VmgateReasonREASON_DROP_UNKNOWN_SOURCE)},
		"another destination MAC":   {frame.with(func(p *packet) { p.dstMAC = macRouter }), nil, punted()},
		"decided on another port":   {frame, func(f *bpf.VmgateFlow) { f.Dir[f.Initiator].InPort = portRouter }, punted()},
		"the other end's direction": {frame.with(func(p *packet) { p.srcMAC, p.dstMAC = macWeb, macApp1 }), nil, spoofed},
	} {
		t.Run(name, func(t *testing.T) {
			g := g.in(t)
			g.empty("pending")
			g.decide(6, 0, app1, 40000, web, 80, c.flow)
			g.expect(c.frame.build(t), c.want)
		})
	}
}

func TestSYN_OnAnExistingFlow(t *testing.T) { bothPaths(t, testSYN_OnAnExistingFlow) }

func testSYN_OnAnExistingFlow(t *testing.T, g *gateway) {
	key := g.decide(6, 0, app1, 40000, web, 80, func(f *bpf.VmgateFlow) { f.SynSeq = be32(1000) })
	g.expect(tcpApp1ToWeb(tcp(40000, 80, syn(1000))).build(t), forwardedTo(portWeb)) // sent again
	if g.pending(key) != nil {
		t.Error("a retransmitted SYN is pending")
	}
	g.expect(tcpApp1ToWeb(tcp(40000, 80, syn(1001))).build(t), punted())
	p := g.pending(key)
	if p == nil || p.SynSeq != be32(1001) || p.TcpFlags != 2 {
		t.Fatalf("pending %+v", p)
	}
	g.empty("pending")
	synAck := tcp(40000, 80, func(l *layers.TCP) { l.SYN, l.ACK = true, true })
	g.expect(tcpApp1ToWeb(synAck).build(t), forwardedTo(portWeb))

	w := g.webSide()
	back := tcpApp1ToWeb(nil).reversed(tcp(80, 40000, syn(1000)))
	w.expect(back.build(t), puntedWith(0)) // not the initiator's, whatever its number
}

func TestSYN_OfAFlowSeenMidstreamIsNew(t *testing.T) { bothPaths(t, testSYN_OfAFlowSeenMidstreamIsNew) }

func testSYN_OfAFlowSeenMidstreamIsNew(t *testing.T, g *gateway) {
	g.decide(6, 0, app1, 40000, web, 80, nil) // no SYN was seen: syn_seq is 0
	g.expect(tcpApp1ToWeb(tcp(40000, 80, syn(0))).build(t), punted())
}

func TestTimeouts(t *testing.T) { bothPaths(t, testTimeouts) }

func testTimeouts(t *testing.T, g *gateway) {
	// Not seconds: a machine that has just booted has no such past.
	const tick = second / 40
	g.set(func(s *bpf.VmgateSettings) {
		s.TcpEstablished, s.TcpTransient, s.UdpIdle, s.OtherIdle = 100*tick, 30*tick, 60*tick, 20*tick
	})
	ago := func(d uint64) uint64 { return now() - d*tick }
	seen := func(flags0, flags1 uint32, d uint64) func(*bpf.VmgateFlow) {
		return func(f *bpf.VmgateFlow) {
			f.Created = ago(d + 1)
			f.Dir[0].TcpFlags, f.Dir[1].TcpFlags = flags0, flags1
			f.Dir[1].LastSeen = ago(d)
		}
	}
	const synF, ackF, finF, rstF = 0x02, 0x10, 0x01, 0x04
	tcpFrame := tcpApp1ToWeb(tcp(40000, 80, ack)).build(t)
	udpFrame := udpApp1ToWeb(40000, 80).build(t)
	echoFrame := echoApp1ToWeb(9).build(t)
	for name, c := range map[string]struct {
		proto uint8
		frame []byte
		flow  func(*bpf.VmgateFlow)
		alive bool
	}{
		"established TCP lives 100 ticks":  {6, tcpFrame, seen(synF|ackF, synF|ackF, 60), true},
		"and no longer":                    {6, tcpFrame, seen(synF|ackF, synF|ackF, 105), false},
		"half-open TCP lives 30 ticks":     {6, tcpFrame, seen(synF, 0, 10), true},
		"and no longer, half-open":         {6, tcpFrame, seen(synF, 0, 35), false},
		"answered but not acknowledged":    {6, tcpFrame, seen(synF, synF|ackF, 35), false},
		"a FIN shortens it":                {6, tcpFrame, seen(ackF|finF, ackF, 35), false},
		"a RST shortens it":                {6, tcpFrame, seen(ackF, ackF|rstF, 35), false},
		"UDP lives 60 ticks":               {17, udpFrame, seen(0, 0, 35), true},
		"and no longer, UDP":               {17, udpFrame, seen(0, 0, 65), false},
		"echo lives 20 ticks":              {1, echoFrame, seen(0, 0, 5), true},
		"and no longer, echo":              {1, echoFrame, seen(0, 0, 25), false},
		"unused since it was made":         {17, udpFrame, func(f *bpf.VmgateFlow) { f.Created = ago(65) }, false},
		"expiry is absolute":               {17, udpFrame, func(f *bpf.VmgateFlow) { f.Dir[0].LastSeen, f.Expires = now(), ago(1) }, false},
		"expiry in the future":             {17, udpFrame, func(f *bpf.VmgateFlow) { f.Expires = now() + 5*second }, true},
		"made a moment after coarse clock": {17, udpFrame, func(f *bpf.VmgateFlow) { f.Created = now() + second/10 }, true},
	} {
		t.Run(name, func(t *testing.T) {
			g := g.in(t)
			g.empty("flows")
			g.empty("pending")
			sport, dport := uint16(40000), uint16(80)
			if c.proto == 1 {
				sport, dport = 9, 9
			}
			g.decide(c.proto, 0, app1, sport, web, dport, c.flow)
			if c.alive {
				g.expect(c.frame, forwardedTo(portWeb))
			} else {
				g.expect(c.frame, punted())
			}
		})
	}
}
