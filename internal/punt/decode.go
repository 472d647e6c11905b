package punt

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
)

// maxExtensions is how many IPv6 extension headers a packet may have, as in
// bpf/parse_ip.h: more than any honest one has.
const maxExtensions = 8

var (
	errTruncated = errors.New("the headers are longer than the packet or its copy")
	errOverlap   = errors.New("the fragment overlaps the head of its packet")
	// Such addresses never belong on a wire (RFC 4291 2.5.5.2), and in a flow key
	// they would pass for those of an IPv4 flow.
	errMapped = errors.New("an IPv6 packet with an IPv4-mapped address")
	errNoHead = errors.New("a fragment whose head was not seen")
)

// decoder finds the flow that a held packet belongs to. gopacket's layers read the
// headers; they are kept between packets to spare allocations. A decoder serves
// one goroutine.
type decoder struct {
	ip4  layers.IPv4
	ip6  layers.IPv6
	ext  layers.IPv6ExtensionSkipper
	tcp  layers.TCP
	udp  layers.UDP
	sctp layers.SCTP
	icmp layers.ICMPv4
	ic6  layers.ICMPv6

	fragments *fragments
}

func newDecoder() *decoder { return &decoder{fragments: newFragments()} }

// datagram is an IP packet or fragment with its IP headers taken off.
type datagram struct {
	proto    uint8
	src, dst netip.Addr
	payload  []byte // as far as it was copied
	cut      int    // bytes of the payload that the copy lacks
	fragment bool
	fragKey  fragmentKey // of a fragment, without the VLAN
	offset   int         // where its part begins in the whole packet, bytes
	end      int         // where it ends
}

// decode fills the flow's fields of p from the packet's bytes, which begin with
// the IP header and may be cut. p.VLAN and p.Len must be set.
func (d *decoder) decode(p *Packet, data []byte) error {
	dg, err := d.network(data, p.Len)
	if err != nil {
		return err
	}
	if dg.fragment && dg.offset > 0 {
		return d.laterFragment(p, dg)
	}
	ports, err := d.transport(p, dg)
	if err != nil {
		return err
	}
	if dg.fragment {
		dg.fragKey.vlan = p.VLAN
		d.fragments.put(dg.fragKey, fragmentHead{proto: dg.proto, ports: ports, end: dg.end, seen: p.Received})
	}
	p.setFlow(dg, dg.proto, ports)
	return nil
}

func (p *Packet) setFlow(dg datagram, proto uint8, ports [2]uint16) {
	p.Proto = proto
	p.Src = netip.AddrPortFrom(dg.src, ports[0])
	p.Dst = netip.AddrPortFrom(dg.dst, ports[1])
}

// laterFragment takes the flow from the packet's head.
func (d *decoder) laterFragment(p *Packet, dg datagram) error {
	dg.fragKey.vlan = p.VLAN
	head, ok := d.fragments.get(dg.fragKey, p.Received)
	if !ok {
		return errNoHead
	}
	// A fragment that rewrites what its head said of the flow is an attack
	// (RFC 3128, RFC 5722).
	if dg.offset < head.end {
		return errOverlap
	}
	p.setFlow(dg, head.proto, head.ports)
	return nil
}

func (d *decoder) network(data []byte, length int) (datagram, error) {
	if len(data) == 0 {
		return datagram{}, errTruncated
	}
	switch data[0] >> 4 {
	case 4:
		return d.ipv4(data)
	case 6:
		return d.ipv6(data, length)
	default:
		return datagram{}, fmt.Errorf("IP version %d", data[0]>>4)
	}
}

func (d *decoder) ipv4(data []byte) (datagram, error) {
	if err := d.ip4.DecodeFromBytes(data, gopacket.NilDecodeFeedback); err != nil {
		return datagram{}, err
	}
	ip := &d.ip4
	src, _ := netip.AddrFromSlice(ip.SrcIP)
	dst, _ := netip.AddrFromSlice(ip.DstIP)
	return datagram{
		proto: uint8(ip.Protocol), src: src, dst: dst,
		payload:  ip.Payload,
		fragment: ip.Flags&layers.IPv4MoreFragments != 0 || ip.FragOffset != 0,
		fragKey:  fragmentKey{proto: uint8(ip.Protocol), src: src, dst: dst, id: uint32(ip.Id)},
		offset:   int(ip.FragOffset) * 8,
		end:      int(ip.FragOffset)*8 + int(ip.Length) - int(ip.IHL)*4,
	}, nil
}

func (d *decoder) ipv6(data []byte, length int) (datagram, error) {
	if err := d.ip6.DecodeFromBytes(data, gopacket.NilDecodeFeedback); err != nil {
		return datagram{}, err
	}
	ip := &d.ip6
	src, _ := netip.AddrFromSlice(ip.SrcIP)
	dst, _ := netip.AddrFromSlice(ip.DstIP)
	if src.Is4In6() || dst.Is4In6() {
		return datagram{}, errMapped
	}
	dg := datagram{src: src, dst: dst, payload: ip.Payload, cut: max(length-len(data), 0)}
	next := ip.NextHeader
	if ip.HopByHop != nil {
		next = ip.HopByHop.NextHeader
	}
	return dg, d.extensions(&dg, next)
}

// extensions walks the IPv6 extension headers up to the transport header, or to
// the payload of a later fragment.
func (d *decoder) extensions(dg *datagram, next layers.IPProtocol) error {
	for range maxExtensions + 1 {
		switch next {
		case layers.IPProtocolIPv6Routing, layers.IPProtocolIPv6Destination:
			if err := d.ext.DecodeFromBytes(dg.payload, gopacket.NilDecodeFeedback); err != nil {
				return err
			}
			dg.payload, next = d.ext.Payload, d.ext.NextHeader
		case layers.IPProtocolAH:
			if len(dg.payload) < 2 {
				return errTruncated
			}
			size := (int(dg.payload[1]) + 2) * 4 // RFC 4302
			if len(dg.payload) < size {
				return errTruncated
			}
			next, dg.payload = layers.IPProtocol(dg.payload[0]), dg.payload[size:]
		case layers.IPProtocolIPv6Fragment:
			if dg.fragment || len(dg.payload) < 8 {
				return errTruncated
			}
			next = layers.IPProtocol(dg.fragmentHeader())
			if dg.offset > 0 {
				return nil
			}
		case layers.IPProtocolIPv6HopByHop:
			return errors.New("a hop-by-hop header that is not the first")
		case layers.IPProtocolNoNextHeader:
			return errors.New("an IPv6 packet without payload")
		default:
			dg.proto = uint8(next)
			return nil
		}
	}
	return fmt.Errorf("more than %d IPv6 extension headers", maxExtensions)
}

// fragmentHeader takes the IPv6 fragment header (RFC 8200 4.5), of 8 bytes, off
// the payload and returns the next header. An atomic fragment (RFC 6946) is none.
func (dg *datagram) fragmentHeader() (next uint8) {
	header := dg.payload[:8]
	word := binary.BigEndian.Uint16(header[2:])
	dg.offset = int(word &^ 7)
	dg.fragment = word&^6 != 0
	dg.fragKey = fragmentKey{proto: header[0], src: dg.src, dst: dg.dst, id: binary.BigEndian.Uint32(header[4:])}
	dg.payload = dg.payload[8:]
	dg.end = dg.offset + len(dg.payload) + dg.cut
	return header[0]
}
