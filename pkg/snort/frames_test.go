package snort

import (
	"net"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
)

var (
	macA = net.HardwareAddr{0x02, 0, 0, 0, 0, 0x0a}
	macB = net.HardwareAddr{0x02, 0, 0, 0, 0, 0x0b}
	ipA  = net.IPv4(192, 168, 1, 10)
	ipB  = net.IPv4(192, 168, 1, 74)
)

// tcpFrame is a segment from a to b, or back.
func tcpFrame(t testing.TB, back bool, vlan uint16, tcp layers.TCP, payload []byte) []byte {
	t.Helper()
	eth := &layers.Ethernet{SrcMAC: macA, DstMAC: macB, EthernetType: layers.EthernetTypeIPv4}
	ip := &layers.IPv4{Version: 4, TTL: 64, Protocol: layers.IPProtocolTCP, SrcIP: ipA, DstIP: ipB}
	if back {
		eth.SrcMAC, eth.DstMAC = macB, macA
		ip.SrcIP, ip.DstIP = ipB, ipA
	}
	if tcp.Window == 0 {
		tcp.Window = 64240
	}
	must(t, tcp.SetNetworkLayerForChecksum(ip))
	stack := []gopacket.SerializableLayer{eth}
	if vlan != 0 {
		eth.EthernetType = layers.EthernetTypeDot1Q
		stack = append(stack, &layers.Dot1Q{VLANIdentifier: vlan, Priority: 3, Type: layers.EthernetTypeIPv4})
	}
	stack = append(stack, ip, &tcp, gopacket.Payload(payload))
	return serialize(t, stack...)
}

func syn(t testing.TB, sport uint16, seq uint32) []byte {
	t.Helper()
	return tcpFrame(t, false, 0, layers.TCP{SrcPort: layers.TCPPort(sport), DstPort: 80, Seq: seq, SYN: true}, nil)
}

func udpFrame(t testing.TB, back bool, payload []byte) []byte {
	t.Helper()
	eth := &layers.Ethernet{SrcMAC: macA, DstMAC: macB, EthernetType: layers.EthernetTypeIPv4}
	ip := &layers.IPv4{Version: 4, TTL: 64, Protocol: layers.IPProtocolUDP, SrcIP: ipA, DstIP: ipB}
	udp := &layers.UDP{SrcPort: 40009, DstPort: 9999}
	if back {
		eth.SrcMAC, eth.DstMAC = macB, macA
		ip.SrcIP, ip.DstIP = ipB, ipA
		udp.SrcPort, udp.DstPort = udp.DstPort, udp.SrcPort
	}
	must(t, udp.SetNetworkLayerForChecksum(ip))
	return serialize(t, eth, ip, udp, gopacket.Payload(payload))
}

func serialize(t testing.TB, stack ...gopacket.SerializableLayer) []byte {
	t.Helper()
	buf := gopacket.NewSerializeBuffer()
	must(t, gopacket.SerializeLayers(buf, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, stack...))
	return buf.Bytes()
}

func tcpSYN(sport layers.TCPPort) layers.TCP {
	return layers.TCP{SrcPort: sport, DstPort: 80, Seq: 1, SYN: true}
}

// tcpData belongs to an open connection. Of one that it meets in its middle Snort
// takes the end with the lower port for the server.
func tcpData(seq, ack uint32, back bool) layers.TCP {
	tcp := layers.TCP{SrcPort: 44444, DstPort: 5555, Seq: seq, Ack: ack, ACK: true, PSH: true}
	if back {
		tcp.SrcPort, tcp.DstPort = tcp.DstPort, tcp.SrcPort
	}
	return tcp
}
