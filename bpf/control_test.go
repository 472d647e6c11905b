package bpf_test

import (
	"net"
	"net/netip"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"github.com/vmgate/vmgate/bpf"
)

// frame is anything that builds one.
type frame interface{ build(testing.TB) []byte }

type rawFrame []gopacket.SerializableLayer

func (r rawFrame) build(t testing.TB) []byte { return serialise(t, r...) }

func arp(src, dst net.HardwareAddr, op uint16, sha net.HardwareAddr, spa netip.Addr, tha net.HardwareAddr, tpa netip.Addr) rawFrame {
	if tha == nil {
		tha = make(net.HardwareAddr, 6)
	}
	return append(ethernet(src, dst, nil, 0, layers.EthernetTypeARP), &layers.ARP{
		AddrType: layers.LinkTypeEthernet, Protocol: layers.EthernetTypeIPv4, HwAddressSize: 6, ProtAddressSize: 4,
		Operation: op, SourceHwAddress: sha, SourceProtAddress: spa.AsSlice(), DstHwAddress: tha, DstProtAddress: tpa.AsSlice(),
	})
}

func TestARP(t *testing.T) { bothPaths(t, testARP) }

func testARP(t *testing.T, g *gateway) {
	const request, reply = 1, 2
	ask := func(target netip.Addr) rawFrame {
		return arp(macApp1, broadcast, request, macApp1, app1, nil, target)
	}
	stranger := netip.MustParseAddr("10.0.0.77")
	for name, c := range map[string]struct {
		frame   frame
		want    want
		to      net.HardwareAddr // the Ethernet destination it leaves with
		prepare func(*gateway)
	}{
		"a question goes to the holder alone":         {frame: ask(web), want: controlTo(portWeb), to: macWeb},
		"a question by a VM without address (probe)":  {frame: arp(macApp1, broadcast, request, macApp1, none4, nil, web), want: controlTo(portWeb), to: macWeb},
		"a question about a stranger goes to routers": {frame: ask(stranger), want: toRouters},
		"an isolated holder hears nothing":            {frame: ask(web), want: cutOff, prepare: func(g *gateway) { g.vmVerdict(idWeb, drop) }},
		"the vSwitch has asked its own":               {frame: ask(app2), want: absorbed},
		"unless the port reflects":                    {frame: ask(app2), want: controlTo(portApp), to: macApp2, prepare: func(g *gateway) { g.portFlags(portApp, bpf.VmgatePortFlagPORT_REFLECT) }},
		"a question to one MAC":                       {frame: arp(macApp1, macRouter, request, macApp1, app1, nil, stranger), want: controlTo(portRouter)},
		"an answer":                                   {frame: arp(macApp1, macWeb, reply, macApp1, app1, macWeb, web), want: controlTo(portWeb)},
		"an answer to nobody":                         {frame: arp(macApp1, macNobody, reply, macApp1, app1, macNobody, web), want: unknownDst},
		"an announcement":                             {frame: arp(macApp1, broadcast, request, macApp1, app1, nil, app1), want: toAll},
		"an announcement as answer":                   {frame: arp(macApp1, broadcast, reply, macApp1, app1, macApp1, app1), want: toAll},
		"a probe for its own":                         {frame: arp(macApp1, broadcast, request, macApp1, none4, nil, app1), want: absorbed},
		"another's address":                           {frame: arp(macApp1, broadcast, request, macApp1, app2, nil, web), want: spoofed},
		"another's address as answer":                 {frame: arp(macApp1, macWeb, reply, macApp1, gw, macWeb, web), want: spoofed},
		"an announcement of another's":                {frame: arp(macApp1, broadcast, request, macApp1, web, nil, web), want: spoofed},
		"an answer from no address":                   {frame: arp(macApp1, macWeb, reply, macApp1, none4, macWeb, web), want: lying},
		"another's MAC inside":                        {frame: arp(macApp1, broadcast, request, macApp2, app1, nil, web), want: lying},
		"neither question nor answer":                 {frame: arp(macApp1, broadcast, 3, macApp1, app1, nil, web), want: lying},
	} {
		t.Run(name, func(t *testing.T) {
			g := g.in(t)
			g.populate()
			g.beat(0) // none of this needs the daemon
			if c.prepare != nil {
				c.prepare(g)
			}
			f := c.frame.build(t)
			if c.to != nil {
				c.want = c.want.rewritten(f, c.to)
			}
			g.expect(f, c.want)
		})
	}
}

func TestControl_OfAVMUnderInspectionGoesThroughTheIDS(t *testing.T) {
	bothPaths(t, testControl_OfAVMUnderInspectionGoesThroughTheIDS)
}

func testControl_OfAVMUnderInspectionGoesThroughTheIDS(t *testing.T, g *gateway) {
	g.beat(0)
	question := arp(macApp1, broadcast, 1, macApp1, app1, nil, web).build(t)
	answer := arp(macWeb, macApp1, 2, macWeb, web, macApp1, app1).build(t)
	w := g.webSide()
	for _, id := range []uint32{idApp1, idWeb} {
		g.vmVerdict(id, check)
		g.expect(question, checkedBy(portIDSIn).rewritten(question, macWeb))
		w.expect(answer, checkedBy(portIDSOut))
		g.vmVerdict(id, forward)
	}
	g.vmVerdict(idWeb, check)
	g.set(func(s *bpf.VmgateSettings) { s.Ids[0].State = bpf.VmgateIdsStateIDS_DOWN_CLOSED })
	g.expect(question, dropped(bpf.VmgateReasonREASON_DROP_IDS_DOWN).rewritten(question, macWeb))
	g.mode(bpf.VmgateModeMODE_MONITOR)
	g.expect(question, redirected(portWeb, bpf.VmgateReasonREASON_MONITOR).rewritten(question, macWeb))
}

func TestDHCP_ClothesDoNotKeepAFlowFromItsVerdict(t *testing.T) {
	bothPaths(t, testDHCP_ClothesDoNotKeepAFlowFromItsVerdict)
}

func testDHCP_ClothesDoNotKeepAFlowFromItsVerdict(t *testing.T, g *gateway) {
	g.decide(17, 0, app1, 68, web, 67, nil)
	frame := udpApp1ToWeb(68, 67).build(t)
	g.expect(frame, forwardedTo(portWeb))
	g.rule(drop)
	g.expect(frame, cutOff)
}

func TestARP_TeachesALearningVMsAddress(t *testing.T) {
	bothPaths(t, testARP_TeachesALearningVMsAddress)
}

func testARP_TeachesALearningVMsAddress(t *testing.T, g *gateway) {
	events := g.events()
	g.vm(idApp1, func(vm *bpf.VmgateVm) { vm.Flags = bpf.VmgateVmFlagVM_LEARN })
	g.expect(arp(macApp1, broadcast, 1, macApp1, far, nil, far).build(t), toAll)
	if ev := events(); len(ev) != 1 || ev[0].Type != bpf.VmgateEventTypeEVENT_NEW_ADDRESS || ev[0].Key.Addr[ev[0].From] != far.As16() {
		t.Errorf("events %+v", ev)
	}
	var e bpf.VmgateAddrEntry
	if err := g.maps["vm_addrs"].Lookup(addrKey(0, host(far)), &e); err != nil || e.Vm != idApp1 {
		t.Errorf("%+v, %v", e, err)
	}
}

func TestARP_NoTruncationPasses(t *testing.T) { bothPaths(t, testARP_NoTruncationPasses) }

func testARP_NoTruncationPasses(t *testing.T, g *gateway) {
	f := arp(macApp1, broadcast, 1, macApp1, app1, nil, web).build(t)
	for cut := 14; cut < 42; cut++ {
		g.expect(f[:cut], malformed)
	}
	g.expect(f[:42], controlTo(portWeb).rewritten(f[:42], macWeb))
}

// nd builds an ICMPv6 message with a right checksum.
func nd(src, dst net.HardwareAddr, from, to netip.Addr, hops, kind uint8, body ...byte) frame {
	return packet{
		srcMAC: src, dstMAC: dst, src: from, dst: to, ttl: hops, proto: 58,
		l4:      []gopacket.SerializableLayer{&layers.ICMPv6{TypeCode: layers.CreateICMPv6TypeCode(kind, 0)}},
		payload: body,
	}
}

func ndBody(target netip.Addr, option uint8, m net.HardwareAddr) []byte {
	a := target.As16()
	b := append(make([]byte, 4), a[:]...)
	if m != nil {
		b = append(append(b, option, 1), m...)
	}
	return b
}

func solicited(a netip.Addr) (net.HardwareAddr, netip.Addr) {
	b := a.As16()
	to := netip.AddrFrom16([16]byte{0: 0xff, 1: 2, 11: 1, 12: 0xff, 13: b[13], 14: b[14], 15: b[15]})
	return net.HardwareAddr{0x33, 0x33, 0xff, b[13], b[14], b[15]}, to
}

func TestND(t *testing.T) { bothPaths(t, testND) }

func testND(t *testing.T, g *gateway) {
	const (
		rs, ra, ns, na, redirect = 133, 134, 135, 136, 137
		sourceMAC, targetMAC     = 1, 2
	)
	allNodes, allNodesMAC := netip.MustParseAddr("ff02::1"), mac("33:33:00:00:00:01")
	allRouters, allRoutersMAC := netip.MustParseAddr("ff02::2"), mac("33:33:00:00:00:02")
	stranger := netip.MustParseAddr("2001:db8::77")
	webLL := netip.MustParseAddr("fe80::ff:fe00:2") // made from macWeb
	appLL := netip.MustParseAddr("fe80::ff:fe00:1")
	ask := func(target netip.Addr) frame {
		m, to := solicited(target)
		return nd(macApp1, m, app16, to, 255, ns, ndBody(target, sourceMAC, macApp1)...)
	}
	dad := func(target netip.Addr) frame {
		m, to := solicited(target)
		return nd(macApp1, m, none6, to, 255, ns, ndBody(target, 0, nil)...)
	}
	router := func(g *gateway) {
		g.vm(idApp1, func(vm *bpf.VmgateVm) { vm.Flags = bpf.VmgateVmFlagVM_ROUTER })
	}
	for name, c := range map[string]struct {
		frame   frame
		want    want
		to      net.HardwareAddr
		prepare func(*gateway)
	}{
		"a question goes to the holder alone":         {frame: ask(web6), want: controlTo(portWeb), to: macWeb},
		"a question about a stranger goes to routers": {frame: ask(stranger), want: toRouters},
		"a question about a MAC's link-local":         {frame: ask(webLL), want: controlTo(portWeb), to: macWeb},
		"an isolated holder hears nothing":            {frame: ask(web6), want: cutOff, prepare: func(g *gateway) { g.vmVerdict(idWeb, drop) }},
		"the vSwitch has asked its own":               {frame: ask(app26), want: absorbed},
		"duplicate detection for its own":             {frame: dad(app16), want: absorbed},
		"duplicate detection for its link-local":      {frame: dad(appLL), want: absorbed},
		"duplicate detection for another's":           {frame: dad(web6), want: controlTo(portWeb), to: macWeb},
		"duplicate detection with a MAC":              {frame: nd(macApp1, mac("33:33:ff:00:00:01"), none6, allNodes, 255, ns, ndBody(app16, sourceMAC, macApp1)...), want: lying},
		"a unicast question":                          {frame: nd(macApp1, macWeb, app16, web6, 255, ns, ndBody(web6, sourceMAC, macApp1)...), want: controlTo(portWeb)},
		"an answer":                                   {frame: nd(macApp1, macWeb, app16, web6, 255, na, ndBody(app16, targetMAC, macApp1)...), want: controlTo(portWeb)},
		"an unsolicited answer":                       {frame: nd(macApp1, allNodesMAC, app16, allNodes, 255, na, ndBody(app16, targetMAC, macApp1)...), want: toAll},
		"an answer for another's address":             {frame: nd(macApp1, macWeb, app16, web6, 255, na, ndBody(app26, targetMAC, macApp1)...), want: spoofed},
		"an answer with another's MAC":                {frame: nd(macApp1, macWeb, app16, web6, 255, na, ndBody(app16, targetMAC, macApp2)...), want: lying},
		"a question with another's MAC":               {frame: nd(macApp1, allNodesMAC, app16, allNodes, 255, ns, ndBody(web6, sourceMAC, macApp2)...), want: lying},
		"a question from another's address":           {frame: nd(macApp1, allNodesMAC, app26, allNodes, 255, ns, ndBody(web6, sourceMAC, macApp1)...), want: spoofed},
		"a question that a router passed on":          {frame: nd(macApp1, macWeb, app16, web6, 254, ns, ndBody(web6, sourceMAC, macApp1)...), want: lying},
		"a question about a group":                    {frame: nd(macApp1, macWeb, app16, web6, 255, ns, ndBody(allNodes, sourceMAC, macApp1)...), want: lying},
		"an option of length 0":                       {frame: nd(macApp1, macWeb, app16, web6, 255, ns, append(ndBody(web6, 0, nil), 14, 0, 0, 0, 0, 0, 0, 0)...), want: lying},
		"an option beyond the message":                {frame: nd(macApp1, macWeb, app16, web6, 255, ns, append(ndBody(web6, 0, nil), 14, 2, 0, 0, 0, 0, 0, 0)...), want: lying},
		"a second option that lies":                   {frame: nd(macApp1, macWeb, app16, web6, 255, ns, append(ndBody(web6, sourceMAC, macApp1), 1, 1, 9, 9, 9, 9, 9, 9)...), want: lying},
		"nine options":                                {frame: nd(macApp1, macWeb, app16, web6, 255, ns, append(ndBody(web6, 0, nil), nonces(9)...)...), want: lying},
		"eight options":                               {frame: nd(macApp1, macWeb, app16, web6, 255, ns, append(ndBody(web6, 0, nil), nonces(8)...)...), want: controlTo(portWeb)},
		"a message without its target":                {frame: nd(macApp1, macWeb, app16, web6, 255, ns, 0, 0, 0, 0), want: lying},
		"a router is asked for":                       {frame: nd(macApp1, allRoutersMAC, appLL, allRouters, 255, rs, 0, 0, 0, 0), want: toRouters},
		"a router is asked for from ::":               {frame: nd(macApp1, allRoutersMAC, none6, allRouters, 255, rs, 0, 0, 0, 0), want: toRouters},
		"a VM that says it routes":                    {frame: nd(macApp1, allNodesMAC, appLL, allNodes, 255, ra, make([]byte, 12)...), want: lying},
		"a router says so":                            {frame: nd(macApp1, allNodesMAC, appLL, allNodes, 255, ra, make([]byte, 12)...), want: toAll, prepare: router},
		"a router answers one":                        {frame: nd(macApp1, macWeb, appLL, web6, 255, ra, make([]byte, 12)...), want: controlTo(portWeb), prepare: router},
		"a redirect, even of a router":                {frame: nd(macApp1, macWeb, appLL, web6, 255, redirect, make([]byte, 36)...), want: lying, prepare: router},
	} {
		t.Run(name, func(t *testing.T) {
			g := g.in(t)
			g.populate()
			g.beat(0)
			if c.prepare != nil {
				c.prepare(g)
			}
			f := c.frame.build(t)
			if c.to != nil {
				c.want = c.want.rewritten(f, c.to)
			}
			g.expect(f, c.want)
		})
	}
}

// nonces are n options of no interest.
func nonces(n int) []byte {
	var b []byte
	for range n {
		b = append(b, 14, 1, 0, 0, 0, 0, 0, 0)
	}
	return b
}

func TestGroupMembership(t *testing.T) { bothPaths(t, testGroupMembership) }

func testGroupMembership(t *testing.T, g *gateway) {
	g.beat(0)
	routers := netip.MustParseAddr("ff02::16")
	m := mac("33:33:00:00:00:16")
	g.expect(packet{
		srcMAC: macApp1, dstMAC: m, src: none6, dst: routers, ttl: 1, proto: 58, firstExt: 0,
		extensions: []byte{58, 0, 5, 2, 0, 0, 1, 0}, // router alert
		l4:         []gopacket.SerializableLayer{&layers.ICMPv6{TypeCode: layers.CreateICMPv6TypeCode(143, 0)}},
		payload:    make([]byte, 4),
	}.build(t), toRouters)
	igmp := packet{srcMAC: macApp1, dstMAC: mac("01:00:5e:00:00:16"), src: app1, dst: netip.MustParseAddr("224.0.0.22"), ttl: 1, proto: 2, payload: make([]byte, 8)}
	g.expect(igmp.build(t), toRouters)
	igmp.src = none4
	g.expect(igmp.build(t), toRouters)
	igmp.src = app2
	g.expect(igmp.build(t), spoofed)
	igmp.src, igmp.dstMAC = app1, macWeb // a group's address in a unicast frame
	g.expect(igmp.build(t), lying)
}

func TestMulticast_ThatIsNotControlIsDropped(t *testing.T) {
	bothPaths(t, testMulticast_ThatIsNotControlIsDropped)
}

func testMulticast_ThatIsNotControlIsDropped(t *testing.T, g *gateway) {
	multicast := dropped(bpf.VmgateReasonREASON_DROP_MULTICAST)
	for _, c := range []struct {
		dst  string
		mac  net.HardwareAddr
		want want
	}{
		{"224.0.0.251", mac("01:00:5e:00:00:fb"), multicast},
		{"255.255.255.255", broadcast, multicast},
		{"10.0.0.255", broadcast, multicast},
		{"10.0.0.2", broadcast, multicast},
		{"224.0.0.251", macWeb, multicast},
	} {
		g.expect(udpApp1ToWeb(5353, 5353).with(func(p *packet) { p.dst, p.dstMAC = netip.MustParseAddr(c.dst), c.mac }).build(t), c.want)
	}
	g.expect(udpApp1ToWeb(5353, 5353).overIPv6().with(func(p *packet) {
		p.dst, p.dstMAC = netip.MustParseAddr("ff02::fb"), mac("33:33:00:00:00:fb")
	}).build(t), multicast)
}

// dhcp is a client's request, or with DHCPOpReply a server's answer.
func dhcp(src, dst, client net.HardwareAddr, op layers.DHCPOp) packet {
	p := packet{
		srcMAC: src, dstMAC: dst, src: none4, dst: netip.MustParseAddr("255.255.255.255"), proto: 17,
		l4: []gopacket.SerializableLayer{
			&layers.UDP{SrcPort: 68, DstPort: 67},
			&layers.DHCPv4{Operation: op, HardwareType: layers.LinkTypeEthernet, HardwareLen: 6, ClientHWAddr: client},
		},
	}
	if op == layers.DHCPOpReply {
		p.l4[0] = &layers.UDP{SrcPort: 67, DstPort: 68}
	}
	return p
}

func TestDHCP(t *testing.T) { bothPaths(t, testDHCP) }

func testDHCP(t *testing.T, g *gateway) {
	server := func(g *gateway) {
		g.vm(idApp1, func(vm *bpf.VmgateVm) { vm.Flags = bpf.VmgateVmFlagVM_DHCP_SERVER })
	}
	ask := dhcp(macApp1, broadcast, macApp1, layers.DHCPOpRequest)
	answer := dhcp(macApp1, broadcast, macApp1, layers.DHCPOpReply).with(func(p *packet) { p.src = app1 })
	servers := netip.MustParseAddr("ff02::1:2")
	six := packet{
		srcMAC: macApp1, dstMAC: mac("33:33:00:01:00:02"), src: netip.MustParseAddr("fe80::1"), dst: servers, proto: 17,
		l4: []gopacket.SerializableLayer{&layers.UDP{SrcPort: 546, DstPort: 547}}, payload: make([]byte, 20),
	}
	sixAnswer := six.with(func(p *packet) {
		p.dstMAC, p.dst = macWeb, web6
		p.l4 = []gopacket.SerializableLayer{&layers.UDP{SrcPort: 547, DstPort: 546}}
	})
	for name, c := range map[string]struct {
		frame   packet
		want    want
		prepare func(*gateway)
	}{
		"a client asks all":               {frame: ask, want: toRouters},
		"a client renews with its server": {frame: ask.with(func(p *packet) { p.dstMAC, p.src, p.dst = macRouter, app1, gw }), want: controlTo(portRouter)},
		"a flow in DHCP's clothes":        {frame: ask.with(func(p *packet) { p.dstMAC, p.src, p.dst = macWeb, app1, web }), want: dropped(bpf.VmgateReasonREASON_DROP_DAEMON_DOWN)},
		"a client asks for another":       {frame: dhcp(macApp1, broadcast, macApp2, layers.DHCPOpRequest), want: lying},
		"a client answers": {frame: ask.with(func(p *packet) {
			p.l4 = []gopacket.SerializableLayer{ask.l4[0], answer.l4[1]}
		}), want: lying},
		"a client with another's address":  {frame: ask.with(func(p *packet) { p.src = app2 }), want: spoofed},
		"a VM that says it is a server":    {frame: answer, want: lying},
		"a server answers all":             {frame: answer, want: toAll, prepare: server},
		"a server answers one":             {frame: answer.with(func(p *packet) { p.dstMAC, p.dst = macWeb, web }), want: controlTo(portWeb), prepare: server},
		"IPv6: a client asks all":          {frame: six, want: toRouters},
		"IPv6: a VM says it is a server":   {frame: sixAnswer, want: lying},
		"IPv6: a server answers one":       {frame: sixAnswer, want: controlTo(portWeb), prepare: server},
		"IPv6: a flow in DHCPv6's clothes": {frame: six.with(func(p *packet) { p.dstMAC, p.dst = macWeb, web6 }), want: dropped(bpf.VmgateReasonREASON_DROP_DAEMON_DOWN)},
	} {
		t.Run(name, func(t *testing.T) {
			g := g.in(t)
			g.populate()
			g.beat(0)
			if c.prepare != nil {
				c.prepare(g)
			}
			g.expect(c.frame.build(t), c.want)
		})
	}
}
