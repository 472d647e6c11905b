package loader

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"fmt"
	"net/netip"
)

// FlowKey names a flow in both of its directions: two ends in a fixed order,
// the protocol, the VLAN tags and the layer 2 group. It is comparable; two
// packets of one flow have equal keys whichever way they go.
type FlowKey struct {
	addr         [2][16]byte // IPv4 as ::ffff:a.b.c.d
	port         [2]uint16   // for ICMP echo both are the identifier
	outer, inner uint16      // VLAN ids, 0 for none
	proto, group uint8
}

// NewFlowKey returns the key of the flow that a packet from src to dst belongs
// to, and the index of src among the key's ends. For ICMP echo the caller puts
// the identifier into both ports; protocols without ports have 0.
func NewFlowKey(proto uint8, src, dst netip.AddrPort, vlanOuter, vlanInner uint16, group uint8) (key FlowKey, from int) {
	a, b := src.Addr().As16(), dst.Addr().As16()
	key = FlowKey{outer: vlanOuter, inner: vlanInner, proto: proto, group: group}
	if cmp.Or(bytes.Compare(a[:], b[:]), cmp.Compare(src.Port(), dst.Port())) > 0 {
		from = 1
	}
	key.addr[from], key.port[from] = a, src.Port()
	key.addr[1-from], key.port[1-from] = b, dst.Port()
	return key, from
}

// Addr returns end i (0 or 1) of the flow. IPv4 addresses are plain, not mapped.
func (k FlowKey) Addr(i int) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom16(k.addr[i]).Unmap(), k.port[i])
}

// Proto returns the IP protocol number.
func (k FlowKey) Proto() uint8 { return k.proto }

// VLAN returns the outer and inner VLAN id; 0 stands for no tag.
func (k FlowKey) VLAN() (outer, inner uint16) { return k.outer, k.inner }

// Group returns the layer 2 group of the flow's segments.
func (k FlowKey) Group() uint8 { return k.group }

// IDSSlot is the slot of Settings.Slots that the flow falls in, the same for both
// directions: bpf/share.h, slot_of_flow.
func (k FlowKey) IDSSlot() uint32 {
	w, hash := k.wire(), uint32(0)
	// It cannot fail: a fixed size.
	b, _ := binary.Append(nil, binary.NativeEndian, &w)
	for ; len(b) >= 4; b = b[4:] {
		hash = (hash ^ binary.NativeEndian.Uint32(b)) * 0x9e3779b1
		hash ^= hash >> 15
	}
	return hash % IDSSlots
}

// String returns the flow for logs, such as "tcp 10.0.0.1:80 10.0.0.2:4711".
func (k FlowKey) String() string {
	s := fmt.Sprintf("%s %s %s", protoName(k.proto), k.Addr(0), k.Addr(1))
	if k.outer != 0 || k.inner != 0 {
		s += fmt.Sprintf(" vlan %d.%d", k.outer, k.inner)
	}
	return s
}

func protoName(proto uint8) string {
	switch proto {
	case 1:
		return "icmp"
	case 6:
		return "tcp"
	case 17:
		return "udp"
	case 58:
		return "icmpv6"
	case 132:
		return "sctp"
	}
	return fmt.Sprintf("proto-%d", proto)
}

func (k FlowKey) wire() wireFlowKey {
	return wireFlowKey{
		Addr:  k.addr,
		Port:  [2]uint16{hton16(k.port[0]), hton16(k.port[1])},
		Vlan:  wireVLAN(k.outer, k.inner),
		Proto: k.proto,
		Group: k.group,
	}
}

func flowKeyFromWire(w wireFlowKey) FlowKey {
	return FlowKey{
		addr:  w.Addr,
		port:  [2]uint16{hton16(w.Port[0]), hton16(w.Port[1])},
		outer: uint16(w.Vlan >> 16),
		inner: uint16(w.Vlan),
		proto: w.Proto,
		group: w.Group,
	}
}

func wireVLAN(outer, inner uint16) uint32 { return uint32(outer)<<16 | uint32(inner) }

// hton16 turns host order into network order and back.
func hton16(v uint16) uint16 {
	var b [2]byte
	binary.BigEndian.PutUint16(b[:], v)
	return binary.NativeEndian.Uint16(b[:])
}

func hton32(v uint32) uint32 {
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], v)
	return binary.NativeEndian.Uint32(b[:])
}
