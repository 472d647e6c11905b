package bpf_test

import (
	"encoding/binary"
	"fmt"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"github.com/vmgate/vmgate/bpf"
)

// TestHeaders_EveryCombinationFindsItsFlow: each way of tagging, each network
// header and each transport are read to the flow that they belong to, and to no
// other: a neighbouring port or tag is undecided.
func TestHeaders_EveryCombinationFindsItsFlow(t *testing.T) {
	bothPaths(t, testHeaders_EveryCombinationFindsItsFlow)
}

func testHeaders_EveryCombinationFindsItsFlow(t *testing.T, g *gateway) {
	g.set(func(s *bpf.VmgateSettings) { s.HeldPerFlow = 0 }) // what is undecided is dropped, and said so
	tags := map[string]struct {
		stack []layers.Dot1Q
		outer layers.EthernetType
		vlan  uint32
	}{
		"untagged":          {nil, 0, 0},
		"priority":          {[]layers.Dot1Q{{Priority: 7}}, 0, 0},
		"tag":               {vlan(5), 0, 5 << 16},
		"tag with priority": {[]layers.Dot1Q{{VLANIdentifier: 5, Priority: 3, DropEligible: true}}, 0, 5 << 16},
		"service tag":       {vlan(5), layers.EthernetTypeQinQ, 5 << 16},
		"two tags":          {vlan(5, 6), 0, 5<<16 | 6},
		"QinQ":              {vlan(5, 6), layers.EthernetTypeQinQ, 5<<16 | 6},
		"priority, tag":     {vlan(0, 6), 0, 6},
		"tag, priority":     {vlan(5, 0), 0, 5 << 16},
	}
	for _, c := range tags {
		g.macAt(c.vlan, macApp1, idApp1, portApp)
		g.macAt(c.vlan, macWeb, idWeb, portWeb)
	}
	for name, tag := range tags {
		for header, network := range networks {
			for transport, l4 := range transports {
				p := network(packet{srcMAC: macApp1, dstMAC: macWeb, tags: tag.stack, outerType: tag.outer, src: app1, dst: web}, l4)
				proto := l4.proto(p.src.Is6())
				g.decide(uint8(proto), tag.vlan, p.src, l4.sport, p.dst, l4.dport, nil)
				frame := p.build(t)
				t.Run(fmt.Sprintf("%s/%s/%s", name, header, transport), func(t *testing.T) {
					g := g.in(t)
					g.expect(frame, forwardedTo(portWeb))
					g.empty("flows")
					g.expect(frame, dropped(rHeld))
				})
			}
		}
	}
}

type transportCase struct {
	v4, v6       layers.IPProtocol
	sport, dport uint16
	body         []byte
}

func (c transportCase) proto(v6 bool) layers.IPProtocol {
	if v6 {
		return c.v6
	}
	return c.v4
}

func ports(sport, dport uint16, rest ...byte) []byte {
	return append(binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(nil, sport), dport), rest...)
}

var transports = map[string]transportCase{
	"TCP":                   {6, 6, 7, 80, ports(7, 80, 0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x10, 1, 0, 0, 0, 0, 0)},
	"TCP with options":      {6, 6, 8, 80, ports(8, 80, 0, 0, 0, 1, 0, 0, 0, 1, 0x60, 0x10, 1, 0, 0, 0, 0, 0, 1, 1, 1, 0)},
	"UDP":                   {17, 17, 7, 53, ports(7, 53, 0, 12, 0, 0, 1, 2, 3, 4)},
	"UDP-Lite":              {136, 136, 7, 53, ports(7, 53, 0, 8, 0, 0, 1, 2, 3, 4)},
	"UDP-Lite, all covered": {136, 136, 8, 53, ports(8, 53, 0, 0, 0, 0, 1, 2, 3, 4)},
	"SCTP":                  {132, 132, 7, 80, ports(7, 80, make([]byte, 8)...)},
	"echo request":          {1, 58, 9, 9, nil},
	"GRE":                   {47, 47, 0, 0, []byte{0, 0, 8, 0, 1, 2, 3, 4}},
	"ESP":                   {50, 50, 0, 0, make([]byte, 16)},
	"IPv4 inside":           {4, 4, 0, 0, make([]byte, 20)},
	"IPv6 inside":           {41, 41, 0, 0, make([]byte, 40)},
	"OSPF":                  {89, 89, 0, 0, make([]byte, 24)},
	"Mobility":              {135, 135, 0, 0, make([]byte, 8)},
}

var networks = map[string]func(packet, transportCase) packet{
	"IPv4": func(p packet, c transportCase) packet { return carry(p, c) },
	"IPv4 with options": func(p packet, c transportCase) packet {
		p.options = []layers.IPv4Option{{OptionType: 148, OptionLength: 4, OptionData: []byte{0, 0}}, {OptionType: 1}}
		return carry(p, c)
	},
	"IPv6": func(p packet, c transportCase) packet { return carry(p.overIPv6(), c) },
	"IPv6 with every extension": func(p packet, c transportCase) packet {
		p = carry(p.overIPv6(), c)
		next := uint8(p.proto)
		p.firstExt = 0 // hop-by-hop, then options, routing, atomic fragment, authentication, options
		p.extensions = append(ext(60, 0, 8), ext(43, 0, 16)...)
		p.extensions = append(p.extensions, ext(44, 4, 8)...)
		p.extensions = append(p.extensions, 51, 0, 0, 0, 0, 0, 0, 1)
		p.extensions = append(p.extensions, ah(60)...)
		p.extensions = append(p.extensions, ext(next, 0, 24)...)
		return p
	},
	"IPv6 with 1 kB of options": func(p packet, c transportCase) packet {
		p = carry(p.overIPv6(), c)
		p.firstExt, p.extensions = 60, ext(uint8(p.proto), 0, 1024)
		return p
	},
}

// carry puts the transport into the packet.
func carry(p packet, c transportCase) packet {
	p.proto = c.proto(p.src.Is6())
	body := c.body
	switch {
	case body != nil:
	case p.src.Is6():
		body = []byte{128, 0, 0, 0, 0, 9, 0, 1}
	default:
		body = []byte{8, 0, 0, 0, 0, 9, 0, 1}
	}
	p.l4 = []gopacket.SerializableLayer{gopacket.Payload(body)}
	return p
}
