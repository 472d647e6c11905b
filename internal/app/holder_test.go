package app

import (
	"context"
	"net/netip"
	"testing"

	"github.com/vmgate/vmgate/internal/punt"
	"github.com/vmgate/vmgate/pkg/loader"
)

func flowNumber(n int) *undecided {
	src := netip.AddrPortFrom(netip.MustParseAddr("192.0.2.1"), uint16(n))
	key, _ := loader.NewFlowKey(6, src, netip.MustParseAddrPort("192.0.2.2:80"), 0, 0, 0)
	return &undecided{key: key, packets: []*punt.Packet{{Len: n}}}
}

func TestHolder_PacketsOfAFlowComeOutOnceAndInOrder(t *testing.T) {
	deciding, taken := make(chan struct{}), make(chan []*punt.Packet)
	goOn := make(chan struct{})
	var h *holder
	h = newHolder(t.Context(), 3, 8, func(_ context.Context, u *undecided) {
		deciding <- struct{}{}
		<-goOn
		taken <- h.take(u)
	})
	flow := flowNumber(1)
	if !h.admit(flow) {
		t.Fatal("the first flow was refused")
	}
	<-deciding
	for n := 2; n <= 4; n++ {
		joined, room := h.join(flow.key, &punt.Packet{Len: n})
		if wantRoom := n <= 3; !joined || room != wantRoom {
			t.Errorf("packet %d: joined %t, room %t; want room %t", n, joined, room, wantRoom)
		}
	}
	close(goOn)
	packets := <-taken
	if len(packets) != 3 {
		t.Fatalf("%d packets were held, want 3", len(packets))
	}
	for i, p := range packets {
		if p.Len != i+1 {
			t.Errorf("place %d holds packet %d", i, p.Len)
		}
	}
	if joined, _ := h.join(flow.key, &punt.Packet{}); joined {
		t.Error("a packet joined a flow that is decided")
	}
}

func TestHolder_OneVMsFullLineLeavesTheOthersAlone(t *testing.T) {
	deciding, release := make(chan uint32), make(chan struct{})
	h := newHolder(t.Context(), 1, 2, func(_ context.Context, u *undecided) {
		deciding <- u.pending.VM[0]
		<-release
	})
	admit := func(vm uint32, n int) bool {
		flow := flowNumber(n)
		flow.pending.VM[0] = vm
		return h.admit(flow)
	}
	if !admit(1, 1) {
		t.Fatal("the first flow was refused")
	}
	<-deciding // the worker of VM 1 is busy; two more fit in its line
	if !admit(1, 2) || !admit(1, 3) || admit(1, 4) {
		t.Error("the line of VM 1 does not hold two")
	}
	if !admit(2, 5) {
		t.Fatal("VM 2 was refused because of VM 1")
	}
	if vm := <-deciding; vm != 2 {
		t.Errorf("VM %d was decided, want 2, whose line is its own", vm)
	}
	close(release)
	for range 2 {
		<-deciding
	}
}

func TestHolder_NothingIsAdmittedAfterTheEnd(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	h := newHolder(ctx, 1, 1, func(context.Context, *undecided) {})
	cancel()
	if h.admit(flowNumber(1)) {
		t.Error("a flow was admitted that nobody will decide")
	}
	h.wait()
}
