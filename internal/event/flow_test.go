package event

import (
	"net/netip"
	"testing"

	"pgregory.net/rapid"
)

func ap(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }

// The vectors are those of the specification's baseline for seed 0:
// https://github.com/corelight/community-id-spec, baseline/baseline_deflt.json.
func TestCommunityID_SpecificationVectors(t *testing.T) {
	for _, c := range []struct {
		proto    uint8
		src, dst string
		want     string
	}{
		{6, "128.232.110.120:34855", "66.35.250.204:80", "1:LQU9qZlK+B5F3KDmev6m5PMibrg="},
		{6, "66.35.250.204:80", "128.232.110.120:34855", "1:LQU9qZlK+B5F3KDmev6m5PMibrg="},
		{17, "192.168.1.52:54585", "8.8.8.8:53", "1:d/FP5EW3wiY1vCndhwleRRKHowQ="},
		{17, "8.8.8.8:53", "192.168.1.52:54585", "1:d/FP5EW3wiY1vCndhwleRRKHowQ="},
		{6, "[2001:470:e5bf:dead:4957:2174:e82c:4887]:63943", "[2607:f8b0:400c:c03::1a]:25", "1:/qFaeAR+gFe1KYjMzVDsMv+wgU4="},
		{132, "192.168.170.8:7", "192.168.170.56:7", "1:MP2EtRCAUIZvTw6MxJHLV7N7JDs="},
		{132, "192.168.170.56:7", "192.168.170.8:7", "1:MP2EtRCAUIZvTw6MxJHLV7N7JDs="},
		{46, "10.1.12.2:0", "10.1.12.1:0", "1:KHlLkgoJW7ifUTyTSgyVfkFHzKw="},
		// Echoes; the ports here are an identifier.
		{1, "192.168.0.89:7", "192.168.0.1:7", "1:X0snYXpgwiv9TZtqg64sgzUn6Dk="},
		{58, "[3ffe:507:0:1:200:86ff:fe05:80da]:7", "[3ffe:501:0:1001::2]:7", "1:+TW+HtLHvV1xnGhV1lv7XoJrqQg="},
	} {
		if got := CommunityID(c.proto, ap(c.src), ap(c.dst)); got != c.want {
			t.Errorf("CommunityID(%d, %s, %s) = %q, want %q", c.proto, c.src, c.dst, got, c.want)
		}
	}
}

func TestCommunityID_NoneForMixedOrMissingAddresses(t *testing.T) {
	if got := CommunityID(6, ap("192.0.2.1:1"), ap("[2001:db8::1]:1")); got != "" {
		t.Errorf("mixed families: %q", got)
	}
	if got := CommunityID(6, netip.AddrPort{}, netip.AddrPort{}); got != "" {
		t.Errorf("no addresses: %q", got)
	}
}

func TestFlowID_DirectionsShareItAndFlowsDoNot(t *testing.T) {
	addr := rapid.Custom(func(t *rapid.T) netip.AddrPort {
		var b [4]byte
		copy(b[:], rapid.SliceOfN(rapid.Byte(), 4, 4).Draw(t, "addr"))
		return netip.AddrPortFrom(netip.AddrFrom4(b), rapid.Uint16().Draw(t, "port"))
	})
	seen := map[uint64][4]any{}
	rapid.Check(t, func(t *rapid.T) {
		a, b := addr.Draw(t, "a"), addr.Draw(t, "b")
		proto, vlan := rapid.Byte().Draw(t, "proto"), rapid.Uint32().Draw(t, "vlan")
		id := FlowID(proto, a, b, vlan)
		if back := FlowID(proto, b, a, vlan); back != id {
			t.Fatalf("%d one way, %d the other", id, back)
		}
		if id == 0 || id >= 1<<53 {
			t.Fatalf("%d does not fit a double, or is none", id)
		}
		if CommunityID(6, a, b) != CommunityID(6, b, a) {
			t.Fatal("the community id depends on the direction")
		}
		if b.Compare(a) < 0 {
			a, b = b, a
		}
		flow := [4]any{proto, a, b, vlan}
		if other, ok := seen[id]; ok && other != flow {
			t.Fatalf("%v and %v share %d", other, flow, id)
		}
		seen[id] = flow
	})
}

func TestProto_NamesAndNumbers(t *testing.T) {
	for proto, name := range map[uint8]string{1: "ICMP", 6: "TCP", 17: "UDP", 58: "IPv6-ICMP", 132: "SCTP", 99: "99"} {
		if got := ProtoName(proto); got != name {
			t.Errorf("ProtoName(%d) = %q, want %q", proto, got, name)
		}
	}
}
