package bpf_test

import (
	"net/netip"
	"testing"

	"github.com/google/gopacket/layers"

	"github.com/vmgate/vmgate/bpf"
)

func TestSource(t *testing.T) { bothPaths(t, testSource) }

func testSource(t *testing.T, g *gateway) {
	g.set(func(s *bpf.VmgateSettings) { s.HeldPerFlow = 1000 })
	syn := tcpApp1ToWeb(tcp(40000, 80, syn(1)))
	from := func(m []byte, a string) packet {
		return syn.with(func(p *packet) { p.srcMAC, p.src = m, netip.MustParseAddr(a) })
	}
	from6 := func(a string) packet {
		return syn.overIPv6().with(func(p *packet) { p.src = netip.MustParseAddr(a) })
	}
	for name, c := range map[string]struct {
		frame packet
		want  want
	}{
		"its own address":          {syn, punted()},
		"its own address, IPv6":    {syn.overIPv6(), punted()},
		"a stranger's MAC":         {from(macNobody, "10.0.0.1"), dropped(bpf.VmgateReasonREASON_DROP_UNKNOWN_SOURCE)},
		"its MAC in another VLAN":  {syn.with(func(p *packet) { p.tags = vlan(9) }), dropped(bpf.VmgateReasonREASON_DROP_UNKNOWN_SOURCE)},
		"the MAC of another port":  {from(macRouter, "10.0.0.4"), spoofed},
		"its neighbour's address":  {from(macApp1, "10.0.0.3"), spoofed},
		"nobody's address":         {from(macApp1, "10.0.0.77"), spoofed},
		"nobody's address, IPv6":   {from6("2001:db8::77"), spoofed},
		"a link-local address":     {from6("fe80::1:2"), punted()},
		"the end of link-local":    {from6("febf::1"), punted()},
		"site-local is no such":    {from6("fec0::1"), spoofed},
		"another's MAC in its own": {from(macApp2, "10.0.0.1"), spoofed},
	} {
		t.Run(name, func(t *testing.T) { g.in(t).expect(c.frame.build(t), c.want) })
	}
}

func TestSource_LinkLocalOfAnotherIsASpoof(t *testing.T) {
	bothPaths(t, testSource_LinkLocalOfAnotherIsASpoof)
}

func testSource_LinkLocalOfAnotherIsASpoof(t *testing.T, g *gateway) {
	g.address(idRouter, gw6, portRouter, macRouter)
	g.expect(tcpApp1ToWeb(tcp(1, 80, syn(1))).overIPv6().with(func(p *packet) { p.src = gw6 }).build(t), spoofed)
}

func TestSource_TemporaryAddressesUnderAPrefix(t *testing.T) {
	bothPaths(t, testSource_TemporaryAddressesUnderAPrefix)
}

func testSource_TemporaryAddressesUnderAPrefix(t *testing.T, g *gateway) {
	g.prefix(idApp1, netip.MustParsePrefix("2001:db8:1::/64"), portApp, macApp1)
	temporary := tcpApp1ToWeb(tcp(1, 80, syn(1))).overIPv6().with(func(p *packet) { p.src = netip.MustParseAddr("2001:db8:1::dead:beef") })
	g.expect(temporary.build(t), punted())
	temporary.srcMAC = macApp2
	g.expect(temporary.build(t), spoofed)
}

func TestSource_NestedMACAndVirtualAddressAsDeclared(t *testing.T) {
	bothPaths(t, testSource_NestedMACAndVirtualAddressAsDeclared)
}

func testSource_NestedMACAndVirtualAddressAsDeclared(t *testing.T, g *gateway) {
	nested := mac("02:00:00:00:01:01")
	virtual := netip.MustParseAddr("10.0.0.100")
	frame := tcpApp1ToWeb(tcp(1, 80, syn(1))).with(func(p *packet) { p.srcMAC, p.src = nested, virtual }).build(t)
	g.expect(frame, dropped(bpf.VmgateReasonREASON_DROP_UNKNOWN_SOURCE))
	g.macAt(0, nested, idApp1, portApp)
	g.expect(frame, spoofed)
	g.address(idApp1, virtual, portApp, nested)
	g.expect(frame, punted())
}

func TestSource_PrefixDoesNotCoverANeighboursOwnAddress(t *testing.T) {
	bothPaths(t, testSource_PrefixDoesNotCoverANeighboursOwnAddress)
}

func testSource_PrefixDoesNotCoverANeighboursOwnAddress(t *testing.T, g *gateway) {
	g.prefix(idApp1, netip.MustParsePrefix("10.0.0.0/24"), portApp, macApp1)
	frame := tcpApp1ToWeb(tcp(1, 80, syn(1)))
	for addr, w := range map[netip.Addr]want{netip.MustParseAddr("10.0.0.200"): punted(), app2: spoofed} {
		frame.src = addr
		g.expect(frame.build(t), w)
	}
}

func TestSource_RouterBearsAnyAddressButTheInventorys(t *testing.T) {
	bothPaths(t, testSource_RouterBearsAnyAddressButTheInventorys)
}

func testSource_RouterBearsAnyAddressButTheInventorys(t *testing.T, g *gateway) {
	r := g.on(bpf.VmgatePortConfig{Id: portRouter, Segment: portRouter, Group: group})
	frame := tcpApp1ToWeb(tcp(1, 80, syn(1))).with(func(p *packet) { p.srcMAC = macRouter })
	for addr, w := range map[netip.Addr]want{far: punted(), gw: punted(), app2: spoofed} {
		frame.src = addr
		r.expect(frame.build(t), w)
	}
	frame.src, frame.dst = far6, web6
	r.expect(frame.build(t), punted())
}

func TestSource_OtherSegmentWithTheSamePortIsASpoof(t *testing.T) {
	bothPaths(t, testSource_OtherSegmentWithTheSamePortIsASpoof)
}

func testSource_OtherSegmentWithTheSamePortIsASpoof(t *testing.T, g *gateway) {
	g.put("vm_macs", bpf.VmgateMacKey{Mac: [6]byte(macApp1), Group: group}, bpf.VmgateMacEntry{Vm: idApp1, Segment: 9, Port: portApp})
	g.expect(tcpApp1ToWeb(tcp(1, 80, syn(1))).build(t), spoofed)
}

func TestLearn_TheFirstClaimantKeepsAnAddress(t *testing.T) {
	bothPaths(t, testLearn_TheFirstClaimantKeepsAnAddress)
}

func testLearn_TheFirstClaimantKeepsAnAddress(t *testing.T, g *gateway) {
	events := g.events()
	g.vm(idApp1, func(vm *bpf.VmgateVm) { vm.Flags = bpf.VmgateVmFlagVM_LEARN })
	g.vm(idApp2, func(vm *bpf.VmgateVm) { vm.Flags = bpf.VmgateVmFlagVM_LEARN })
	claim := tcpApp1ToWeb(tcp(1, 80, syn(1))).with(func(p *packet) { p.src = far })
	g.expect(claim.build(t), punted())

	wantEntry := bpf.VmgateAddrEntry{Vm: idApp1, Port: portApp, Mac: [6]byte(macApp1), Bits: 128}
	for _, view := range []uint32{0, idApp1} {
		var entry bpf.VmgateAddrEntry
		if err := g.maps["vm_addrs"].Lookup(addrKey(view, host(far)), &entry); err != nil || entry != wantEntry {
			t.Errorf("view %d: %+v, %v", view, entry, err)
		}
	}
	ev := events()
	if len(ev) != 1 || ev[0].Type != bpf.VmgateEventTypeEVENT_NEW_ADDRESS || ev[0].Vm != idApp1 ||
		ev[0].Key.Addr[ev[0].From] != far.As16() {
		t.Errorf("events %+v", ev)
	}
	claim.srcMAC = macApp2
	g.expect(claim.build(t), spoofed)
	claim.src = app1
	g.expect(claim.build(t), spoofed) // the inventory's
}

func TestLearn_IsBoundedPerVMAndFamily(t *testing.T) { bothPaths(t, testLearn_IsBoundedPerVMAndFamily) }

func testLearn_IsBoundedPerVMAndFamily(t *testing.T, g *gateway) {
	g.vm(idApp1, func(vm *bpf.VmgateVm) { vm.Flags = bpf.VmgateVmFlagVM_LEARN; vm.Budget = 1000 })
	addr, addr6 := netip.MustParseAddr("10.9.0.1"), netip.MustParseAddr("2001:db8:9::1")
	for i := range 18 {
		w := punted()
		if i >= 16 {
			w = spoofed
		}
		g.expect(tcpApp1ToWeb(tcp(1, 80, syn(1))).with(func(p *packet) { p.src = addr }).build(t), w)
		g.expect(tcpApp1ToWeb(tcp(1, 80, syn(1))).with(func(p *packet) { p.src, p.dst = addr6, web6 }).build(t), w)
		addr, addr6 = addr.Next(), addr6.Next()
	}
}

func TestVM_DropIsAboutAllFramesFromAndTo(t *testing.T) {
	bothPaths(t, testVM_DropIsAboutAllFramesFromAndTo)
}

func testVM_DropIsAboutAllFramesFromAndTo(t *testing.T, g *gateway) {
	frames := map[string][]byte{
		"undecided": tcpApp1ToWeb(tcp(1, 80, syn(1))).build(t),
		"decided":   tcpApp1ToWeb(tcp(40000, 80, ack)).build(t),
		"ARP":       arp(macApp1, broadcast, 1, macApp1, app1, nil, web).build(t),
	}
	g.decide(6, 0, app1, 40000, web, 80, nil)
	for name, frame := range frames {
		for _, id := range []uint32{idApp1, idWeb} {
			g.vmVerdict(id, drop)
			g.expect(frame, cutOff)
			g.vmVerdict(id, forward)
		}
		if o := g.run(frame); o.action == xdpDrop {
			t.Errorf("%s: still dropped after the release: %v", name, o.counted)
		}
	}
	g.vmVerdict(idApp1, drop)
	g.expect(overwrite(frames["decided"], 12, 0x88, 0xcc), cutOff) // not IP at all
	if n := g.run(dhcp(macApp1, broadcast, macApp1, layers.DHCPOpRequest).build(t)); n.action != xdpDrop {
		t.Error("DHCP of an isolated VM passed")
	}
}

func TestEvents_AreSampledByReason(t *testing.T) { bothPaths(t, testEvents_AreSampledByReason) }

func testEvents_AreSampledByReason(t *testing.T, g *gateway) {
	g.set(func(s *bpf.VmgateSettings) { s.EventSample = 2 })
	events := g.events()
	spoof := tcpApp1ToWeb(tcp(7, 80, syn(1))).with(func(p *packet) { p.src = app2 }).build(t)
	// Five in one second of the kernel's clock: a boundary may double the allowance.
	for range 5 {
		g.expect(spoof, spoofed)
	}
	g.expect(tcpApp1ToWeb(tcp(7, 80, syn(1))).with(func(p *packet) { p.dstMAC = macNobody }).build(t), unknownDst)
	got := events()
	spoofs := 0
	for _, e := range got {
		if e.Type == bpf.VmgateEventTypeEVENT_SPOOF {
			spoofs++
			key, from := keyOf(6, 0, app2, 7, web, 80)
			if e.Key != key || e.From != uint32(from) || e.Vm != idApp1 || e.Port != portApp ||
				e.Reason != bpf.VmgateReasonREASON_DROP_SPOOF || e.SrcMac != [6]byte(macApp1) ||
				e.Ethertype != be16(0x0800) || int(e.FrameLen) != len(spoof) {
				t.Errorf("event %+v", e)
			}
		}
	}
	if spoofs < 2 || spoofs > 4 {
		t.Errorf("%d spoof events, want 2 in a second", spoofs)
	}
	if last := got[len(got)-1]; last.Type != bpf.VmgateEventTypeEVENT_DROP || last.Reason != bpf.VmgateReasonREASON_DROP_UNKNOWN_DEST {
		t.Errorf("another reason has an allowance of its own; got %+v", last)
	}
}

func TestEvents_NoneUnlessAsked(t *testing.T) { bothPaths(t, testEvents_NoneUnlessAsked) }

func testEvents_NoneUnlessAsked(t *testing.T, g *gateway) {
	events := g.events()
	g.expect(tcpApp1ToWeb(tcp(7, 80, syn(1))).with(func(p *packet) { p.src = app2 }).build(t), spoofed)
	if ev := events(); len(ev) != 0 {
		t.Errorf("events %+v", ev)
	}
}

func TestEvents_ADroppedFlowNamesCauseOwnerAndRule(t *testing.T) {
	bothPaths(t, testEvents_ADroppedFlowNamesCauseOwnerAndRule)
}

func testEvents_ADroppedFlowNamesCauseOwnerAndRule(t *testing.T, g *gateway) {
	g.set(func(s *bpf.VmgateSettings) { s.EventSample = 100 })
	events := g.events()
	g.decide(6, 0, app1, 40000, web, 80, nil)
	g.owner(ownerApp, drop)
	g.expect(tcpApp1ToWeb(tcp(40000, 80, ack)).build(t), cutOff)
	ev := events()
	if len(ev) != 1 || ev[0].Cause != bpf.VmgateCauseCAUSE_MALICIOUS || ev[0].Owner != ownerApp || ev[0].Rule != theRule || ev[0].Vm != idApp1 {
		t.Errorf("events %+v", ev)
	}
}
