package event

import (
	"crypto/sha1"
	"encoding/base64"
	"encoding/binary"
	"hash/fnv"
	"net/netip"
	"strconv"
)

// IP protocol numbers that have names here (IANA, "Protocol Numbers").
const (
	protoICMP   = 1
	protoTCP    = 6
	protoUDP    = 17
	protoICMPv6 = 58
	protoSCTP   = 132
)

// protoNames are EVE's names of the protocols.
var protoNames = map[uint8]string{
	protoICMP: "ICMP", 2: "IGMP", protoTCP: "TCP", protoUDP: "UDP", 41: "IPv6", 47: "GRE",
	50: "ESP", 51: "AH", protoICMPv6: "IPv6-ICMP", protoSCTP: "SCTP",
}

// ProtoName returns the name of an IP protocol as EVE writes it ("TCP", "UDP",
// "ICMP", "IPv6-ICMP", …), or the number in decimal.
func ProtoName(proto uint8) string {
	if name, ok := protoNames[proto]; ok {
		return name
	}
	return strconv.Itoa(int(proto))
}

// FlowID returns a number that both directions of a flow share, as EVE's
// flow_id: not 0, and small enough (53 bits) for programs that read JSON numbers
// as doubles. It depends on nothing but its arguments, so that all events of a
// flow bear the same one, also after a restart.
func FlowID(proto uint8, src, dst netip.AddrPort, vlan uint32) uint64 {
	if dst.Compare(src) < 0 {
		src, dst = dst, src
	}
	h := fnv.New64a()
	var fixed [9]byte
	binary.BigEndian.PutUint32(fixed[0:], vlan)
	binary.BigEndian.PutUint16(fixed[4:], src.Port())
	binary.BigEndian.PutUint16(fixed[6:], dst.Port())
	fixed[8] = proto
	a, b := src.Addr().As16(), dst.Addr().As16()
	for _, part := range [][]byte{fixed[:], a[:], b[:]} {
		_, _ = h.Write(part)
	}
	return max(h.Sum64()&(1<<53-1), 1)
}

// CommunityID returns the flow's Community ID, version 1 with seed 0, the same
// for both directions and in every tool that implements the specification
// (https://github.com/corelight/community-id-spec). The specification takes type
// and code of ICMP for ports; the flows here bear the identifier instead, so ICMP
// is taken for an echo that src asked and dst answered: only there it matters
// which end is src. It returns "" if the addresses are not of one family.
func CommunityID(proto uint8, src, dst netip.AddrPort) string {
	a, b := src.Addr().Unmap(), dst.Addr().Unmap()
	if !a.IsValid() || a.BitLen() != b.BitLen() {
		return ""
	}
	sport, dport, ported := communityPorts(proto, src.Port(), dst.Port())
	if c := a.Compare(b); c > 0 || c == 0 && sport > dport {
		a, b, sport, dport = b, a, dport, sport
	}
	buf := make([]byte, 2, 2+2*16+2+4) // a seed of 0
	buf = append(buf, a.AsSlice()...)
	buf = append(buf, b.AsSlice()...)
	buf = append(buf, proto, 0)
	if ported {
		buf = binary.BigEndian.AppendUint16(buf, sport)
		buf = binary.BigEndian.AppendUint16(buf, dport)
	}
	sum := sha1.Sum(buf)
	return "1:" + base64.StdEncoding.EncodeToString(sum[:])
}

// communityPorts returns what the specification hashes as ports, if anything.
func communityPorts(proto uint8, sport, dport uint16) (uint16, uint16, bool) {
	switch proto {
	case protoTCP, protoUDP, protoSCTP:
		return sport, dport, true
	case protoICMP:
		return 8, 0, true // echo request, echo reply
	case protoICMPv6:
		return 128, 129, true
	default:
		return 0, 0, false
	}
}
