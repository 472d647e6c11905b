package bpf_test

import (
	"net/netip"
	"testing"

	"github.com/google/gopacket/layers"

	"github.com/vmgate/vmgate/bpf"
)

// TestFlood_OfControlFramesReachesFewAndHurtsNoOther: a VM that asks, announces
// or reports as fast as it can is heard 500 times a second. Its neighbour behind
// the same port, and its own decided flows, know nothing of it.
func TestFlood_OfControlFramesReachesFewAndHurtsNoOther(t *testing.T) {
	bothPaths(t, testFlood_OfControlFramesReachesFewAndHurtsNoOther)
}

func testFlood_OfControlFramesReachesFewAndHurtsNoOther(t *testing.T, g *gateway) {
	g.decide(6, 0, app1, 40000, web, 80, nil)
	flow := tcpApp1ToWeb(tcp(40000, 80, ack)).build(t)
	flood := [][]byte{
		arp(macApp1, broadcast, 1, macApp1, app1, nil, web).build(t),
		arp(macApp1, broadcast, 1, macApp1, app1, nil, app1).build(t),
		packet{srcMAC: macApp1, dstMAC: mac("01:00:5e:00:00:16"), src: app1, dst: netip.MustParseAddr("224.0.0.22"), proto: 2}.build(t),
		dhcp(macApp1, broadcast, macApp1, layers.DHCPOpRequest).build(t),
	}
	start, heard := now(), uint64(0)
	const frames = 3000
	for i := range frames {
		if g.fire(flood[i%len(flood)]).action != xdpDrop {
			heard++
		}
	}
	if limit := 500 + 500*(now()-start)/second + 10; heard < 500 || heard > limit {
		t.Errorf("%d of %d frames went on, want 500 and those of the time that it took (%d)", heard, frames, limit)
	}
	g.expect(flow, forwardedTo(portWeb))
	fromApp2 := arp(macApp2, broadcast, 1, macApp2, app2, nil, web).build(t)
	g.expect(fromApp2, controlTo(portWeb).rewritten(fromApp2, macWeb))
	g.expect(udpApp1ToWeb(1, 80).build(t), punted()) // decisions have budgets of their own
}

// TestFlood_OfMACsCostsNothing: strangers' frames end at their look-up, whoever
// they claim to be, and the VM behind the same port is served as before.
func TestFlood_OfMACsCostsNothing(t *testing.T) { bothPaths(t, testFlood_OfMACsCostsNothing) }

func testFlood_OfMACsCostsNothing(t *testing.T, g *gateway) {
	stranger := dropped(bpf.VmgateReasonREASON_DROP_UNKNOWN_SOURCE)
	for i := range 300 {
		src := mac("02:00:00:99:00:00")
		src[4], src[5] = byte(i>>8), byte(i)
		g.expect(udpApp1ToWeb(1, 80).with(func(p *packet) { p.srcMAC = src }).build(t), stranger)
		g.expect(arp(src, broadcast, 1, src, app1, nil, web).build(t), stranger)
	}
	g.expect(udpApp1ToWeb(1, 80).build(t), punted())
}

func TestMulticast_IsFloodedOnlyWhereTheSegmentSaysSo(t *testing.T) {
	group4 := udpApp1ToWeb(5353, 5353).with(func(p *packet) { p.dstMAC, p.dst = mac("01:00:5e:00:00:fb"), netip.MustParseAddr("224.0.0.251") }).build(t)
	group6 := udpApp1ToWeb(5353, 5353).overIPv6().with(func(p *packet) { p.dstMAC, p.dst = mac("33:33:00:00:00:fb"), netip.MustParseAddr("ff02::fb") }).build(t)
	for _, path := range []datapath{pathXDP, pathTCX} {
		for flooded, outcome := range map[bool]want{true: toAll, false: dropped(rMulticast)} {
			port := bpf.VmgatePortConfig{Id: portApp, Segment: portApp, Group: group}
			if flooded {
				port.Multicast = 1
			}
			g := load(t, path, port, nil)
			g.populate()
			g.expect(group4, outcome)
			g.expect(group6, outcome)
			g.expect(udpApp1ToWeb(1, 2).with(func(p *packet) { p.dstMAC = broadcast }).build(t), dropped(rMulticast)) // a unicast in disguise
			g.expect(overwrite(group4, 6, macApp2...), spoofed)
			g.vmVerdict(idApp1, check)
			g.expect(group4, dropped(rMulticast))
		}
	}
}

// TestMove_AMACThatMovesIsDecidedAnew: after a migration, which the inventory has
// to say, the old place is a spoof and the flows are decided again at the new one.
func TestMove_AMACThatMovesIsDecidedAnew(t *testing.T) {
	bothPaths(t, testMove_AMACThatMovesIsDecidedAnew)
}

func testMove_AMACThatMovesIsDecidedAnew(t *testing.T, g *gateway) {
	w := g.on(bpf.VmgatePortConfig{Id: portRouter, Segment: portRouter, Group: group})
	g.decide(17, 0, app1, 1, web, 2, nil)
	frame := udpApp1ToWeb(1, 2).build(t)
	g.expect(frame, forwardedTo(portWeb))
	w.expect(frame, spoofed) // not its place yet
	g.macAt(0, macApp1, idApp1, portRouter)
	w.expect(frame, punted())
	g.empty("flows") // as the daemon does for a VM that has another segment
	g.expect(frame, spoofed)
	w.expect(frame, punted())
}
