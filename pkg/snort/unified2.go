package snort

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"time"
)

// Types of unified2 records that are read; the others are passed over. Format, big
// endian: Snort 2.9, src/sfutil/Unified2_common.h; Snort 3, src/log/unified2.h.
const (
	u2Packet      = 2
	u2Event       = 7   // IPv4
	u2Event6      = 72  // IPv6
	u2EventVLAN   = 104 // IPv4 with MPLS label and VLAN
	u2Event6VLAN  = 105
	u2Event3      = 114 // Snort 3's own
	u2HeaderLen   = 8
	maxU2Record   = 128 << 10 // a packet has at most 64 KiB, an event some 1.3 KiB
	u2PacketAt    = 28        // of the frame in a packet record
	linkEthernet  = 1         // DLT_EN10MB
	u2Blocked     = 1         // of "blocked" in the older events: 2 is would have, 3 could not
	u2StatusForce = 3
	u2StatusAllow = 0
)

// u2Key joins an event with the packets that follow it.
type u2Key struct{ sensor, event, second uint32 }

// isU2Event says whether a type of record is an event.
func isU2Event(kind uint32) bool {
	switch kind {
	case u2Event, u2Event6, u2EventVLAN, u2Event6VLAN, u2Event3:
		return true
	}
	return false
}

// parseU2Event reads the body of an event record. Events have no message and no MAC
// addresses; these are in the packet record that follows.
func parseU2Event(kind uint32, b []byte, unstated Action) (Alert, u2Key, error) {
	least := map[uint32]int{u2Event: 52, u2Event6: 76, u2EventVLAN: 60, u2Event6VLAN: 84, u2Event3: 96}[kind]
	if len(b) < least {
		return Alert{}, u2Key{}, fmt.Errorf("a unified2 event of type %d with %d bytes", kind, len(b))
	}
	u32 := func(at int) uint32 { return binary.BigEndian.Uint32(b[at:]) }
	key := u2Key{u32(0), u32(4), u32(8)}
	a := Alert{
		Engine: EngineSnort, SID: u32(16), GID: u32(20), Rev: u32(24),
		Priority: int(int32(u32(32))),
	}
	seconds, micros := u32(8), u32(12)
	if seconds == 0 || micros >= 1e6 {
		return Alert{}, key, errors.New("a unified2 event without time")
	}
	a.Time = time.Unix(int64(seconds), int64(micros)*1000)
	var err error
	if kind == u2Event3 {
		a.GID, a.SID = a.SID, a.GID // here the generator comes first
		err = a.u2Event3(b)
	} else {
		a.u2Older(kind, b, unstated)
	}
	return a, key, err
}

// u2Older reads what the older events have behind the priority.
func (a *Alert) u2Older(kind uint32, b []byte, unstated Action) {
	size, at := 4, 36
	if kind == u2Event6 || kind == u2Event6VLAN {
		size = 16
	}
	src, _ := netip.AddrFromSlice(b[at : at+size])
	dst, _ := netip.AddrFromSlice(b[at+size : at+2*size])
	at += 2 * size
	a.Proto = b[at+4]
	a.Src = netip.AddrPortFrom(src, u2Port(a.Proto, b[at:]))
	a.Dst = netip.AddrPortFrom(dst, u2Port(a.Proto, b[at+2:]))
	switch b[at+7] {
	case u2Blocked:
		a.Action = ActionDrop
	case 0: // not blocked, or Snort 3, which says so of everything
		a.Action = unstated
	default:
		a.Action = ActionAlert
	}
	if kind == u2EventVLAN || kind == u2Event6VLAN {
		a.VLAN = binary.BigEndian.Uint16(b[at+12:]) & 0xfff
	}
}

// u2Event3 reads what Snort 3's own event has behind the priority.
func (a *Alert) u2Event3(b []byte) error {
	const (
		srcAt, dstAt, portsAt, vlanAt, versionAt, protoAt, statusAt, actionAt = 48, 64, 84, 88, 92, 93, 94, 95
	)
	if v := b[versionAt]; v != 0 {
		src, okSrc := u2Address(v>>4, b[srcAt:dstAt])
		dst, okDst := u2Address(v&15, b[dstAt:dstAt+16])
		if !okSrc || !okDst {
			return fmt.Errorf("a unified2 event of IP version %#x", v)
		}
		a.Proto = b[protoAt]
		a.Src = netip.AddrPortFrom(src, u2Port(a.Proto, b[portsAt:]))
		a.Dst = netip.AddrPortFrom(dst, u2Port(a.Proto, b[portsAt+2:]))
	}
	a.VLAN = binary.BigEndian.Uint16(b[vlanAt:]) & 0xfff
	// The actions in their order: trust, pass, hold, retry, rewrite, drop, block, reset.
	// A status other than allow and force says that it did not come to that.
	const drop, reset = 5, 7
	a.Action = ActionAlert
	if status := b[statusAt]; status == u2StatusAllow || status == u2StatusForce {
		switch action := b[actionAt]; {
		case action == reset:
			a.Action = ActionReject
		case action >= drop && action < reset:
			a.Action = ActionDrop
		}
	}
	return nil
}

func u2Address(version uint8, b []byte) (netip.Addr, bool) {
	switch version {
	case 4:
		return netip.AddrFromSlice(b[12:16])
	case 6:
		return netip.AddrFromSlice(b[:16])
	}
	return netip.Addr{}, false
}

// u2Port is the port, 0 for the protocols that have type and code there.
func u2Port(proto uint8, b []byte) uint16 {
	const icmp, icmpv6 = 1, 58
	if proto == icmp || proto == icmpv6 {
		return 0
	}
	return binary.BigEndian.Uint16(b)
}

// parseU2Packet reads the body of a packet record. The frame is a part of b; nil
// where it is not Ethernet.
func parseU2Packet(b []byte) (frame []byte, key u2Key, err error) {
	if len(b) < u2PacketAt {
		return nil, key, fmt.Errorf("a unified2 packet record of %d bytes", len(b))
	}
	u32 := func(at int) uint32 { return binary.BigEndian.Uint32(b[at:]) }
	key = u2Key{u32(0), u32(4), u32(8)}
	length := u32(24)
	if int64(length) > int64(len(b)-u2PacketAt) {
		return nil, key, fmt.Errorf("a unified2 packet record with %d of %d bytes", len(b)-u2PacketAt, length)
	}
	if u32(20) != linkEthernet {
		return nil, key, nil
	}
	return b[u2PacketAt : u2PacketAt+int(length)], key, nil
}
