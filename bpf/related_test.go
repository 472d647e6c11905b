package bpf_test

import (
	"net/netip"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"github.com/vmgate/vmgate/bpf"
)

var unrelated = dropped(bpf.VmgateReasonREASON_DROP_RELATED)

// icmpError is one from app1 to web that quotes the frame's packet.
func icmpError(kind, code uint8, quoted []byte) packet {
	return packet{
		srcMAC: macApp1, dstMAC: macWeb, src: app1, dst: web, proto: 1,
		l4:      []gopacket.SerializableLayer{&layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(kind, code)}},
		payload: quoted[14:ipEnd(quoted)],
	}
}

func icmpError6(kind uint8, quoted []byte) packet {
	return packet{
		srcMAC: macApp1, dstMAC: macWeb, src: app16, dst: web6, proto: 58,
		l4:      []gopacket.SerializableLayer{&layers.ICMPv6{TypeCode: layers.CreateICMPv6TypeCode(kind, 0)}},
		payload: append(make([]byte, 4), quoted[14:ipEnd(quoted)]...),
	}
}

func TestICMPError(t *testing.T) { bothPaths(t, testICMPError) }

func testICMPError(t *testing.T, g *gateway) {
	// web has sent to app1; app1 answers with an error.
	udp := udpApp1ToWeb(1, 2).reversed(&layers.UDP{SrcPort: 2, DstPort: 1})
	quoted := udp.build(t)
	quoted6 := udp.overIPv6().build(t)
	mine := udpApp1ToWeb(1, 2).build(t)
	echo := echoApp1ToWeb(7).reversed(echoApp1ToWeb(7).l4[0]).build(t)
	of := func(v bpf.VmgateVerdict) func(*gateway) {
		return func(g *gateway) { g.rule(v) }
	}
	for name, c := range map[string]struct {
		frame   packet
		want    want
		prepare func(*gateway)
	}{
		"port unreachable":                  {frame: icmpError(3, 3, quoted), want: controlTo(portWeb)},
		"only 8 bytes quoted":               {frame: icmpError(3, 3, overwrite(quoted[:14+28], 16, 0, 28)), want: controlTo(portWeb)},
		"too big, IPv6":                     {frame: icmpError6(2, quoted6), want: controlTo(portWeb)},
		"about an echo":                     {frame: icmpError(11, 0, echo), want: controlTo(portWeb)},
		"shares the flow's check":           {frame: icmpError(3, 3, quoted), want: checkedBy(portIDSIn), prepare: of(check)},
		"shares the flow's drop":            {frame: icmpError(3, 3, quoted), want: cutOff, prepare: of(drop)},
		"undecided flow":                    {frame: icmpError(3, 3, quoted), want: unrelated, prepare: of(undecided)},
		"to another than the quoted sender": {frame: icmpError(3, 3, mine), want: unrelated},
		"of no flow":                        {frame: icmpError(3, 3, udpApp1ToWeb(1, 2).reversed(&layers.UDP{SrcPort: 9, DstPort: 1}).build(t)), want: unrelated},
		"of no flow, IPv6":                  {frame: icmpError6(1, udp.overIPv6().reversed(&layers.UDP{SrcPort: 9, DstPort: 1}).build(t)), want: unrelated},
		"of a later fragment":               {frame: icmpError(3, 3, overwrite(quoted, 14+7, 8)), want: unrelated},
		"quoting nothing":                   {frame: icmpError(3, 3, overwrite(quoted[:14+20], 16, 0, 20)), want: unrelated},
		"quoting IPv6 in IPv4":              {frame: icmpError(3, 3, overwrite(quoted, 14, 0x65)), want: unrelated},
		"from another's address":            {frame: icmpError(3, 3, quoted).with(func(p *packet) { p.src = app2 }), want: spoofed},
		"to an isolated VM":                 {frame: icmpError(3, 3, quoted), want: cutOff, prepare: func(g *gateway) { g.vmVerdict(idWeb, drop) }},
		"an ICMP redirect":                  {frame: icmpError(5, 1, quoted), want: lying},
		"in fragments": {frame: icmpError(3, 3, quoted).with(func(p *packet) {
			p.ip4 = func(ip *layers.IPv4) { ip.Flags = layers.IPv4MoreFragments }
			p.payload = p.payload[:32]
		}), want: badPiece},
		"an expired flow":                       {frame: icmpError(3, 3, quoted), want: unrelated, prepare: func(g *gateway) { g.decide(17, 0, app1, 1, web, 2, func(f *bpf.VmgateFlow) { f.Expires = 1 }) }},
		"other ICMP is undecided like any flow": {frame: icmpError(13, 0, quoted), want: punted()},
	} {
		t.Run(name, func(t *testing.T) {
			g := g.in(t)
			g.populate()
			g.decide(17, 0, app1, 1, web, 2, nil)
			g.decide(17, 0, app16, 1, web6, 2, nil)
			g.decide(1, 0, app1, 7, web, 7, nil)
			if c.prepare != nil {
				c.prepare(g)
			}
			g.expect(c.frame.build(t), c.want)
		})
	}
}

func TestICMPError_OfARouterBetween(t *testing.T) { bothPaths(t, testICMPError_OfARouterBetween) }

func testICMPError_OfARouterBetween(t *testing.T, g *gateway) {
	g.decide(17, 0, app1, 1, web, 2, nil)
	r := g.on(bpf.VmgatePortConfig{Id: portRouter, Segment: portRouter, Group: group})
	quoted := udpApp1ToWeb(1, 2).build(t)
	hop := netip.MustParseAddr("198.51.100.1")
	r.expect(icmpError(11, 0, quoted).with(func(p *packet) {
		p.srcMAC, p.dstMAC, p.src, p.dst = macRouter, macApp1, hop, app1
	}).build(t), controlTo(portApp))
}
