package punt

import (
	"net"
	"net/netip"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
)

// frame serializes layers; it is a bug of the test if that fails.
func frame(all ...gopacket.SerializableLayer) []byte {
	buf := gopacket.NewSerializeBuffer()
	options := gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}
	if err := gopacket.SerializeLayers(buf, options, all...); err != nil {
		panic(err)
	}
	return buf.Bytes()
}

func ethernet(from, to host, kind layers.EthernetType) *layers.Ethernet {
	return &layers.Ethernet{SrcMAC: from.mac, DstMAC: to.mac, EthernetType: kind}
}

func ipv4(from, to netip.Addr, proto layers.IPProtocol) *layers.IPv4 {
	return &layers.IPv4{Version: 4, TTL: 64, Protocol: proto, SrcIP: net.IP(from.AsSlice()), DstIP: net.IP(to.AsSlice())}
}

func ipv6(from, to netip.Addr, next layers.IPProtocol) *layers.IPv6 {
	return &layers.IPv6{Version: 6, HopLimit: 64, NextHeader: next, SrcIP: net.IP(from.AsSlice()), DstIP: net.IP(to.AsSlice())}
}

// udp4 is an Ethernet frame with a UDP datagram.
func udp4(from, to host, sport, dport uint16, payload []byte) []byte {
	ip := ipv4(from.v4, to.v4, layers.IPProtocolUDP)
	udp := &layers.UDP{SrcPort: layers.UDPPort(sport), DstPort: layers.UDPPort(dport)}
	_ = udp.SetNetworkLayerForChecksum(ip)
	return frame(ethernet(from, to, layers.EthernetTypeIPv4), ip, udp, gopacket.Payload(payload))
}

// tagged puts an 802.1Q tag into an Ethernet frame.
func tagged(f []byte, vlan uint16) []byte {
	out := append([]byte(nil), f[:12]...)
	out = append(out, 0x81, 0, byte(vlan>>8), byte(vlan))
	return append(out, f[12:]...)
}

// udpPayload returns the payload of a frame that is an IPv4 UDP datagram to the
// port, or nil.
func udpPayload(f []byte, dport uint16) []byte {
	packet := gopacket.NewPacket(f, layers.LayerTypeEthernet, gopacket.Lazy)
	udp, ok := packet.Layer(layers.LayerTypeUDP).(*layers.UDP)
	if !ok || uint16(udp.DstPort) != dport {
		return nil
	}
	return udp.Payload
}

func isUDP(dport uint16) func([]byte) bool {
	return func(f []byte) bool { return udpPayload(f, dport) != nil }
}
