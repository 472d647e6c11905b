package bpf_test

import (
	"encoding/binary"
	"net/netip"
	"testing"

	"github.com/google/gopacket/layers"
)

// FuzzIngress throws bytes at vmgate_ingress, in both modes of the sender: a
// stranger, and app1 speaking to web, whose flows are decided. Whatever comes,
// each frame is counted once, a stranger is never heard, and what passes holds
// what its headers claim.
func FuzzIngress(f *testing.F) {
	plain := tcpApp1ToWeb(tcp(40000, 80, ack))
	for _, s := range []frame{
		plain, plain.overIPv6(), udpApp1ToWeb(1, 2), echoApp1ToWeb(3),
		plain.with(func(p *packet) { p.tags = vlan(5, 6) }),
		plain.with(func(p *packet) {
			p.options = []layers.IPv4Option{{OptionType: 68, OptionLength: 8, OptionData: make([]byte, 6)}}
		}),
		plain.overIPv6().with(func(p *packet) { p.firstExt, p.extensions = 0, append(ext(44, 0, 8), 6, 0, 0, 1, 0, 0, 0, 1) }),
		arp(macApp1, broadcast, 1, macApp1, app1, nil, web),
		nd(macApp1, macWeb, app16, web6, 255, 135, ndBody(web6, 1, macApp1)...),
		dhcp(macApp1, broadcast, macApp1, layers.DHCPOpRequest),
		icmpError(3, 3, udpApp1ToWeb(1, 2).reversed(&layers.UDP{SrcPort: 2, DstPort: 1}).build(f)),
		packet{srcMAC: macApp1, dstMAC: macWeb, src: app1, dst: netip.MustParseAddr("224.0.0.22"), proto: 2},
	} {
		f.Add(s.build(f), true)
		f.Add(s.build(f), false)
	}
	g := newGateway(f)
	g.decide(6, 0, app1, 40000, web, 80, nil)
	g.decide(17, 0, app1, 1, web, 2, nil)
	g.decide(1, 0, app1, 3, web, 3, nil)
	f.Fuzz(func(t *testing.T, data []byte, known bool) {
		if len(data) < 14 || len(data) > 3000 {
			t.Skip("not a frame that a test run takes")
		}
		data = append([]byte(nil), data...)
		if known {
			copy(data[6:], macApp1)
		} else {
			copy(data[6:], macNobody)
		}
		g := g.in(t)
		g.beat(now())
		o := g.run(data)
		total := uint64(0)
		for _, c := range o.counted {
			total += c.Packets
		}
		if total != 1 {
			t.Errorf("counted %v", o.counted)
		}
		switch {
		case o.action == xdpDrop:
		case o.action != xdpPass && o.action != xdpRedirect:
			t.Errorf("action %d", o.action)
		case !known:
			t.Errorf("a stranger's frame passed: %v\n% x", o.counted, data)
		case !whole(data):
			t.Errorf("a malformed frame passed: %v\n% x", o.counted, data)
		case o.action == xdpPass && o.mark == 0:
			t.Error("went up without a mark")
		}
	})
}

// whole says, independently of the kernel's parser, whether a frame holds what
// its lengths claim.
func whole(frame []byte) bool {
	l3 := 14
	for tags := 0; len(frame) >= l3; tags++ {
		kind := binary.BigEndian.Uint16(frame[l3-2:])
		body := frame[l3:]
		switch kind {
		case 0x8100, 0x88a8:
			l3 += 4
			if tags == 2 {
				return false
			}
		case 0x0806:
			return len(body) >= 28
		case 0x0800:
			if len(body) < 20 || body[0]>>4 != 4 {
				return false
			}
			header, total := int(body[0]&15)*4, int(binary.BigEndian.Uint16(body[2:]))
			return header >= 20 && total >= header && total <= len(body)
		case 0x86dd:
			return len(body) >= 40 && body[0]>>4 == 6 && 40+int(binary.BigEndian.Uint16(body[4:])) <= len(body)
		default:
			return false
		}
	}
	return false
}
