package punt

import (
	"encoding/binary"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
)

// transport reads the ports (source, destination) from the head of a packet, and
// p.TCPFlags.
func (d *decoder) transport(p *Packet, dg datagram) (ports [2]uint16, err error) {
	feedback := gopacket.NilDecodeFeedback
	switch layers.IPProtocol(dg.proto) {
	case layers.IPProtocolTCP:
		if err = d.tcp.DecodeFromBytes(dg.payload, feedback); err != nil {
			return ports, err
		}
		p.TCPFlags = dg.payload[13]
		return [2]uint16{uint16(d.tcp.SrcPort), uint16(d.tcp.DstPort)}, nil
	case layers.IPProtocolUDP:
		err = d.udp.DecodeFromBytes(dg.payload, feedback)
		return [2]uint16{uint16(d.udp.SrcPort), uint16(d.udp.DstPort)}, err
	case layers.IPProtocolSCTP:
		err = d.sctp.DecodeFromBytes(dg.payload, feedback)
		return [2]uint16{uint16(d.sctp.SrcPort), uint16(d.sctp.DstPort)}, err
	case layers.IPProtocolUDPLite:
		if len(dg.payload) < 8 {
			return ports, errTruncated
		}
		return [2]uint16{binary.BigEndian.Uint16(dg.payload), binary.BigEndian.Uint16(dg.payload[2:])}, nil
	case layers.IPProtocolICMPv4:
		if err = d.icmp.DecodeFromBytes(dg.payload, feedback); err != nil {
			return ports, err
		}
		if t := d.icmp.TypeCode.Type(); t == layers.ICMPv4TypeEchoRequest || t == layers.ICMPv4TypeEchoReply {
			return [2]uint16{d.icmp.Id, d.icmp.Id}, nil
		}
		return ports, nil
	case layers.IPProtocolICMPv6:
		return d.icmpv6(dg)
	default:
		return ports, nil
	}
}

func (d *decoder) icmpv6(dg datagram) (ports [2]uint16, err error) {
	if err = d.ic6.DecodeFromBytes(dg.payload, gopacket.NilDecodeFeedback); err != nil {
		return ports, err
	}
	switch d.ic6.TypeCode.Type() {
	case layers.ICMPv6TypeEchoRequest, layers.ICMPv6TypeEchoReply:
		if len(d.ic6.Payload) < 4 {
			return ports, errTruncated
		}
		id := binary.BigEndian.Uint16(d.ic6.Payload)
		return [2]uint16{id, id}, nil
	default:
		return ports, nil
	}
}
