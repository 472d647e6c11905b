package loader

import (
	"bytes"
	"encoding/binary"
	"net/netip"
	"testing"

	"github.com/vmgate/vmgate/bpf"
)

func TestAddr_FindsTheLongestPrefix(t *testing.T) {
	d := openMaps(t)
	put := func(vm uint32, prefix string, whose uint32) {
		must(t, d.PutAddr(AddrKey{VM: vm, Prefix: netip.MustParsePrefix(prefix)}, AddrEntry{VM: whose, Port: 3}))
	}
	put(0, "10.0.0.0/24", 1)
	put(0, "10.0.0.7/32", 2)
	put(2, "10.0.0.7/32", 2)
	for _, c := range []struct {
		vm   uint32
		addr string
		want uint32 // 0 for none
	}{{0, "10.0.0.7", 2}, {0, "10.0.0.8", 1}, {2, "10.0.0.7", 2}, {2, "10.0.0.8", 0}, {0, "::7", 0}} {
		if e, ok, err := d.Addr(c.vm, netip.MustParseAddr(c.addr)); err != nil || ok != (c.want != 0) || e.VM != c.want {
			t.Errorf("%s of VM %d: %+v, %t, %v", c.addr, c.vm, e, ok, err)
		}
	}
}

func TestUnlearn_CountsByFamilyAndNotBelowNone(t *testing.T) {
	d := openMaps(t)
	must(t, d.maps["learned"].Put(uint32(9), &bpf.VmgateLearned{Ipv4: 1, Ipv6: 2}))
	for range 2 {
		must(t, d.Unlearn(9, netip.MustParseAddr("10.0.0.1")))
	}
	must(t, d.Unlearn(9, netip.MustParseAddr("fd00::1")))
	var got bpf.VmgateLearned
	must(t, d.maps["learned"].Lookup(uint32(9), &got))
	if got.Ipv4 != 0 || got.Ipv6 != 1 {
		t.Errorf("%+v", got)
	}
}

func TestDecodeEvent_OfDHCP(t *testing.T) {
	encode := func(length uint32) []byte {
		w := wireDHCPEvent{Len: length}
		w.Event.Type, w.Event.Vm = bpf.VmgateEventTypeEVENT_DHCP, 7
		copy(w.Message[:], "message")
		raw, err := binary.Append(nil, binary.NativeEndian, w)
		must(t, err)
		return raw
	}
	if e, err := decodeEvent(encode(7)); err != nil || e.Type != EventDHCP || e.VM != 7 || !bytes.Equal(e.DHCP, []byte("message")) {
		t.Errorf("%+v, %v", e, err)
	}
	if e, err := decodeEvent(encode(1 << 31)); err != nil || len(e.DHCP) != 512 {
		t.Errorf("longer than it can be: %d bytes, %v", len(e.DHCP), err)
	}
	if _, err := decodeEvent(encode(7)[:200]); err == nil {
		t.Error("half an event is read")
	}
}
