package loader

import (
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func genAddr(t *rapid.T) netip.Addr {
	if rapid.Bool().Draw(t, "v4") {
		return netip.AddrFrom4([4]byte(rapid.SliceOfN(rapid.Byte(), 4, 4).Draw(t, "addr4")))
	}
	a := [16]byte(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "addr6"))
	a[0] |= 0x20 // never an IPv4-mapped one
	return netip.AddrFrom16(a)
}

func genMAC(t *rapid.T) MAC {
	return MAC(rapid.SliceOfN(rapid.Byte(), 6, 6).Draw(t, "mac"))
}

func genName(t *rapid.T, max int) string {
	return rapid.StringMatching(`[a-zA-Z0-9 ()/.:-]*`).Filter(func(s string) bool { return len(s) <= max }).Draw(t, "name")
}

func genKey(t *rapid.T) (FlowKey, int) {
	src := netip.AddrPortFrom(genAddr(t), rapid.Uint16().Draw(t, "sport"))
	dst := netip.AddrPortFrom(genAddr(t), rapid.Uint16().Draw(t, "dport"))
	return NewFlowKey(rapid.Byte().Draw(t, "proto"), src, dst, rapid.Uint16Range(0, 4095).Draw(t, "outer"),
		rapid.Uint16Range(0, 4095).Draw(t, "inner"), rapid.Byte().Draw(t, "group"))
}

func roundTrip[V, W any](t *rapid.T, v V, to func(V) W, from func(W) V, opts ...cmp.Option) {
	t.Helper()
	if diff := cmp.Diff(v, from(to(v)), opts...); diff != "" {
		t.Fatalf("%T changes on its way through the kernel (-in +out):\n%s", v, diff)
	}
}

func TestCodecs_WhatGoesInComesOut(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		u32, u64 := rapid.Uint32(), rapid.Uint64()
		port := rapid.Uint32Range(0, MaxPorts-1)
		key, _ := genKey(t)
		roundTrip(t, key, FlowKey.wire, flowKeyFromWire, cmp.AllowUnexported(FlowKey{}))
		dir := func(name string) FlowDir {
			return FlowDir{
				Packets: u64.Draw(t, name), Bytes: u64.Draw(t, name), LastSeen: u64.Draw(t, name),
				SrcMAC: genMAC(t), DstMAC: genMAC(t), InPort: port.Draw(t, name), OutPort: port.Draw(t, name),
				VM: u32.Draw(t, name), Owner: u32.Draw(t, name), TCPFlags: u32.Draw(t, name),
			}
		}
		roundTrip(t, Flow{
			Dir: [2]FlowDir{dir("dir0"), dir("dir1")}, Created: u64.Draw(t, "created"), Expires: u64.Draw(t, "expires"),
			Verdict: u32.Draw(t, "verdict"), Cause: u32.Draw(t, "cause"), Rule: u32.Draw(t, "rule"),
			SynSeq: u32.Draw(t, "seq"), Initiator: rapid.IntRange(0, 1).Draw(t, "initiator"),
			Cleared: rapid.Bool().Draw(t, "cleared"),
		}, Flow.wire, flowFromWire)
		roundTrip(t, Pending{
			FirstSeen: u64.Draw(t, "first"), LastSeen: u64.Draw(t, "last"), Punted: u32.Draw(t, "punted"),
			VM: [2]uint32{u32.Draw(t, "vm0"), u32.Draw(t, "vm1")}, InPort: port.Draw(t, "in"), OutPort: port.Draw(t, "out"),
			SrcMAC: genMAC(t), DstMAC: genMAC(t), SynSeq: u32.Draw(t, "seq"), From: rapid.IntRange(0, 1).Draw(t, "from"),
			TCPFlags: u32.Draw(t, "flags"), FrameLen: u32.Draw(t, "len"),
		}, Pending.wire, pendingFromWire)
		roundTrip(t, VMEntry{
			Verdict: u32.Draw(t, "verdict"), Cause: u32.Draw(t, "cause"), Router: rapid.Bool().Draw(t, "router"),
			DHCPServer: rapid.Bool().Draw(t, "dhcp"), Learn: rapid.Bool().Draw(t, "learn"),
			Budget: u32.Draw(t, "budget"), Name: genName(t, 31),
		}, VMEntry.wire, vmFromWire)
		roundTrip(t, MACKey{MAC: genMAC(t), VLANOuter: rapid.Uint16().Draw(t, "o"), VLANInner: rapid.Uint16().Draw(t, "i"),
			Group: rapid.Uint16().Draw(t, "group")}, MACKey.wire, macKeyFromWire)
		roundTrip(t, MACEntry{u32.Draw(t, "vm"), u32.Draw(t, "segment"), u32.Draw(t, "port")}, MACEntry.wire, macEntryFromWire)
		addr := genAddr(t)
		prefix, err := addr.Prefix(rapid.IntRange(3, addr.BitLen()).Draw(t, "bits")) // keeps the bit that genAddr set
		if err != nil {
			t.Fatal(err)
		}
		roundTrip(t, AddrKey{u32.Draw(t, "vm"), prefix}, AddrKey.wire, addrKeyFromWire, cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }))
		roundTrip(t, AddrEntry{u32.Draw(t, "vm"), u32.Draw(t, "port"), genMAC(t)}, AddrEntry.wire, addrEntryFromWire)
		roundTrip(t, Owner{
			Verdict: u32.Draw(t, "verdict"), Cause: u32.Draw(t, "cause"), VM: u32.Draw(t, "vm"), PID: u32.Draw(t, "pid"),
			StartTime: u64.Draw(t, "start"), Comm: genName(t, 15),
		}, Owner.wire, ownerFromWire)
		roundTrip(t, Rule{u32.Draw(t, "verdict"), u32.Draw(t, "cause"), u64.Draw(t, "digest"), genName(t, 47)}, Rule.wire, ruleFromWire)
		roundTrip(t, VerdictKey{u32.Draw(t, "vm"), rapid.Byte().Draw(t, "proto"), rapid.Uint16().Draw(t, "port")},
			VerdictKey.wire, verdictKeyFromWire)
		roundTrip(t, VerdictEntry{u32.Draw(t, "verdict"), u32.Draw(t, "cause"), u32.Draw(t, "owner"), u64.Draw(t, "observed"),
			u64.Draw(t, "expires")}, VerdictEntry.wire, verdictEntryFromWire)
		idle := rapid.Int64Range(0, 1<<62)
		roundTrip(t, Settings{
			Mode: Mode(u32.Draw(t, "mode")), NewFlowsOpen: rapid.Bool().Draw(t, "open"),
			HeldPerFlow: u32.Draw(t, "held"), HeartbeatTimeout: time.Duration(idle.Draw(t, "t")),
			PendingTimeout: time.Duration(idle.Draw(t, "t")), TCPEstablished: time.Duration(idle.Draw(t, "t")),
			TCPTransient: time.Duration(idle.Draw(t, "t")), UDPIdle: time.Duration(idle.Draw(t, "t")),
			OtherIdle:   time.Duration(idle.Draw(t, "t")),
			EventSample: u32.Draw(t, "sample"),
			IDS:         [MaxIDS]IDSInstance{3: {u32.Draw(t, "in"), u32.Draw(t, "out"), IDSState(u32.Draw(t, "ids"))}},
			Slots:       [IDSSlots]uint8{5: rapid.Byte().Draw(t, "slot")},
		}, Settings.wire, settingsFromWire)
	})
}

func TestFlowKey_BothDirectionsAreOneFlow(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		key, from := genKey(t)
		outer, inner := key.VLAN()
		back, backFrom := NewFlowKey(key.Proto(), key.Addr(1-from), key.Addr(from), outer, inner, key.Group())
		if back != key {
			t.Fatalf("key %v, of the way back %v", key, back)
		}
		if key.Addr(0) != key.Addr(1) && backFrom == from {
			t.Fatalf("both directions come from end %d", from)
		}
		w := key.wire()
		a, b := string(w.Addr[0][:]), string(w.Addr[1][:])
		if a > b || a == b && hton16(w.Port[0]) > hton16(w.Port[1]) {
			t.Fatalf("ends of %v are not sorted", key)
		}
	})
}

func TestFlowKey_IsWrittenInNetworkOrder(t *testing.T) {
	key, from := NewFlowKey(6, netip.MustParseAddrPort("10.0.0.2:80"), netip.MustParseAddrPort("10.0.0.1:40000"), 5, 7, 3)
	if from != 1 || key.Addr(1) != netip.MustParseAddrPort("10.0.0.2:80") {
		t.Errorf("from = %d, end 1 = %v", from, key.Addr(1))
	}
	w := key.wire()
	if w.Addr[0] != [16]byte{10: 0xff, 11: 0xff, 12: 10, 15: 1} {
		t.Errorf("address %x", w.Addr[0])
	}
	if hton16(w.Port[0]) != 40000 || w.Vlan != 5<<16|7 || w.Proto != 6 || w.Group != 3 {
		t.Errorf("wire form %+v", w)
	}
	if got, want := key.String(), "tcp 10.0.0.1:40000 10.0.0.2:80 vlan 5.7"; got != want {
		t.Errorf("String() = %q, want %q", got, want)
	}
}

func TestAddrKey_IPv4PrefixCountsTheMappedBits(t *testing.T) {
	w := AddrKey{7, netip.MustParsePrefix("10.1.2.3/24")}.wire()
	if w.Prefixlen != 32+96+24 || w.Addr != [16]byte{10: 0xff, 11: 0xff, 12: 10, 13: 1, 14: 2} || w.Vm != hton32(7) {
		t.Errorf("wire form %+v", w)
	}
}

func TestNames_AreCutOffWithATerminator(t *testing.T) {
	w := Owner{Comm: "0123456789abcdefXYZ"}.wire()
	if got := ownerFromWire(w).Comm; got != "0123456789abcde" {
		t.Errorf("comm %q", got)
	}
}
