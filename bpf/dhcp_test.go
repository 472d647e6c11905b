package bpf_test

import (
	"bytes"
	"errors"
	"os"
	"testing"
	"time"
	"unsafe"

	"github.com/cilium/ebpf/ringbuf"
	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"github.com/vmgate/vmgate/bpf"
)

// answers reads what was reported of DHCP servers' messages.
func (g *gateway) answers(r *ringbuf.Reader) (all []bpf.VmgateDhcpEvent) {
	g.Helper()
	for {
		r.SetDeadline(time.Now())
		rec, err := r.Read()
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return all
		}
		if err != nil {
			g.Fatal(err)
		}
		if len(rec.RawSample) != int(unsafe.Sizeof(bpf.VmgateDhcpEvent{})) {
			continue
		}
		all = append(all, *(*bpf.VmgateDhcpEvent)(unsafe.Pointer(&rec.RawSample[0])))
	}
}

// TestDHCP_WhatAServerAnswersIsReported: the message of a declared server that is
// delivered, as far as it is there, and no other.
func TestDHCP_WhatAServerAnswersIsReported(t *testing.T) {
	bothPaths(t, testDHCP_WhatAServerAnswersIsReported)
}

func testDHCP_WhatAServerAnswersIsReported(t *testing.T, g *gateway) {
	r, err := ringbuf.NewReader(g.maps["events"])
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Close() })
	answer := func(options int) packet {
		p := dhcp(macApp1, macWeb, macWeb, layers.DHCPOpReply).with(func(p *packet) { p.src, p.dst = app1, web })
		p.l4[1].(*layers.DHCPv4).YourClientIP = web.AsSlice()
		for range options {
			p.l4[1].(*layers.DHCPv4).Options = append(p.l4[1].(*layers.DHCPv4).Options, layers.NewDHCPOption(12, bytes.Repeat([]byte("x"), 98)))
		}
		return p
	}
	g.expect(answer(0).build(t), lying)
	if got := g.answers(r); len(got) != 0 {
		t.Fatalf("of who is no server: %+v", got)
	}
	g.vm(idApp1, func(vm *bpf.VmgateVm) { vm.Flags = bpf.VmgateVmFlagVM_DHCP_SERVER })
	for _, options := range []int{0, 1, 2, 3, 8} {
		frame := answer(options).build(t)
		g.expect(frame, controlTo(portWeb))
		got := g.answers(r)
		if len(got) != 1 {
			t.Fatalf("%d options: %d reports", options, len(got))
		}
		message := gopacket.NewPacket(frame, layers.LayerTypeEthernet, gopacket.Default).Layer(layers.LayerTypeUDP).LayerPayload()
		want := message[:min(len(message), 512)]
		if e := got[0]; e.Event.Vm != idApp1 || int(e.Len) != len(want) || !bytes.Equal(e.Message[:e.Len], want) {
			t.Errorf("%d options: VM %d, %d bytes of %d", options, e.Event.Vm, e.Len, len(want))
		}
	}
	g.vmVerdict(idWeb, drop)
	g.expect(answer(0).build(t), dropped(bpf.VmgateReasonREASON_DROP_VERDICT))
	if got := g.answers(r); len(got) != 0 {
		t.Errorf("of what was not delivered: %+v", got)
	}
}
