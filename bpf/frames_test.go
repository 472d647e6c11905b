package bpf_test

import (
	"net"
	"net/netip"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
)

// packet describes a frame to build; its zero parts are left out.
type packet struct {
	srcMAC, dstMAC net.HardwareAddr
	tags           []layers.Dot1Q      // outermost first
	outerType      layers.EthernetType // of the outer tag; 802.1Q if 0
	src, dst       netip.Addr          //
	options        []layers.IPv4Option //
	ttl            uint8               // 64 if 0
	ip4            func(*layers.IPv4)  // last touches
	extensions     []byte              // raw, between IPv6 header and l4; the first is of type firstExt
	firstExt       layers.IPProtocol   //
	proto          layers.IPProtocol   // of l4
	l4             []gopacket.SerializableLayer
	payload        []byte
}

func tcp(sport, dport uint16, change func(*layers.TCP)) *layers.TCP {
	l := &layers.TCP{SrcPort: layers.TCPPort(sport), DstPort: layers.TCPPort(dport), Window: 1000}
	change(l)
	return l
}

func syn(seq uint32) func(*layers.TCP) {
	return func(l *layers.TCP) { l.SYN, l.Seq = true, seq }
}

func ack(l *layers.TCP) { l.ACK = true }

func vlan(ids ...uint16) []layers.Dot1Q {
	var tags []layers.Dot1Q
	for _, id := range ids {
		tags = append(tags, layers.Dot1Q{VLANIdentifier: id})
	}
	return tags
}

// build serialises the packet with right lengths and checksums.
func (p packet) build(t testing.TB) []byte {
	t.Helper()
	inner := layers.EthernetTypeIPv4
	if p.src.Is6() {
		inner = layers.EthernetTypeIPv6
	}
	stack := ethernet(p.srcMAC, p.dstMAC, p.tags, p.outerType, inner)
	var network gopacket.NetworkLayer
	if p.src.Is4() {
		ip := &layers.IPv4{
			Version: 4, TTL: p.hops(), Protocol: p.proto, Options: p.options,
			SrcIP: p.src.AsSlice(), DstIP: p.dst.AsSlice(),
		}
		if p.ip4 != nil {
			p.ip4(ip)
		}
		network = ip
		stack = append(stack, ip)
	} else {
		ip := &layers.IPv6{
			Version: 6, HopLimit: p.hops(), NextHeader: p.proto,
			SrcIP: p.src.AsSlice(), DstIP: p.dst.AsSlice(),
		}
		network = ip
		stack = append(stack, ip)
		if p.extensions != nil {
			ip.NextHeader = p.firstExt
			stack = append(stack, gopacket.Payload(p.extensions))
		}
	}
	for _, l := range p.l4 {
		if c, ok := l.(interface {
			SetNetworkLayerForChecksum(gopacket.NetworkLayer) error
		}); ok {
			if err := c.SetNetworkLayerForChecksum(network); err != nil {
				t.Fatal(err)
			}
		}
	}
	return serialise(t, append(append(stack, p.l4...), gopacket.Payload(p.payload))...)
}

func (p packet) hops() uint8 {
	if p.ttl == 0 {
		return 64
	}
	return p.ttl
}

// reversed is the same packet from the other end, with l4 as given.
func (p packet) reversed(l4 gopacket.SerializableLayer) packet {
	p.srcMAC, p.dstMAC = p.dstMAC, p.srcMAC
	p.src, p.dst = p.dst, p.src
	p.l4 = []gopacket.SerializableLayer{l4}
	return p
}

func (p packet) with(change func(*packet)) packet {
	change(&p)
	return p
}

func ethernet(src, dst net.HardwareAddr, tags []layers.Dot1Q, outer, inner layers.EthernetType) []gopacket.SerializableLayer {
	eth := &layers.Ethernet{SrcMAC: src, DstMAC: dst, EthernetType: inner}
	stack := []gopacket.SerializableLayer{eth}
	if len(tags) > 0 {
		eth.EthernetType = layers.EthernetTypeDot1Q
		if outer != 0 {
			eth.EthernetType = outer
		}
	}
	for i, tag := range tags {
		tag.Type = inner
		if i+1 < len(tags) {
			tag.Type = layers.EthernetTypeDot1Q
		}
		stack = append(stack, &tag)
	}
	return stack
}

func serialise(t testing.TB, stack ...gopacket.SerializableLayer) []byte {
	t.Helper()
	buf := gopacket.NewSerializeBuffer()
	opts := gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}
	if err := gopacket.SerializeLayers(buf, opts, stack...); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// The usual packets: app1 asks web.

func tcpApp1ToWeb(l4 *layers.TCP) packet {
	return packet{
		srcMAC: macApp1, dstMAC: macWeb, src: app1, dst: web,
		proto: layers.IPProtocolTCP, l4: []gopacket.SerializableLayer{l4}, payload: []byte("hello, web"),
	}
}

func udpApp1ToWeb(sport, dport uint16) packet {
	return packet{
		srcMAC: macApp1, dstMAC: macWeb, src: app1, dst: web, proto: layers.IPProtocolUDP,
		l4:      []gopacket.SerializableLayer{&layers.UDP{SrcPort: layers.UDPPort(sport), DstPort: layers.UDPPort(dport)}},
		payload: []byte("hello, web"),
	}
}

func echoApp1ToWeb(id uint16) packet {
	return packet{
		srcMAC: macApp1, dstMAC: macWeb, src: app1, dst: web, proto: layers.IPProtocolICMPv4,
		l4: []gopacket.SerializableLayer{&layers.ICMPv4{
			TypeCode: layers.CreateICMPv4TypeCode(layers.ICMPv4TypeEchoRequest, 0), Id: id, Seq: 1,
		}},
		payload: []byte("0123456789"),
	}
}

// overIPv6 moves a packet between app1 and web to their IPv6 addresses.
func (p packet) overIPv6() packet {
	six := map[netip.Addr]netip.Addr{app1: app16, web: web6, app2: app26}
	p.src, p.dst = six[p.src], six[p.dst]
	return p
}
