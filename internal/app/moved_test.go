package app

import (
	"maps"
	"testing"

	"github.com/vmgate/vmgate/internal/config"
	"github.com/vmgate/vmgate/pkg/loader"
)

func TestMoved_SegmentMACAndAbsenceCount(t *testing.T) {
	place := func(segmentNumber uint32, macs ...config.MAC) *node {
		return &node{segment: &segment{number: segmentNumber, group: 1}, macs: macs}
	}
	a, b := config.MAC{2, 0, 0, 0, 0, 1}, config.MAC{2, 0, 0, 0, 0, 2}
	old := &inventory{byID: map[uint32]*node{1: place(1, a), 2: place(1, b), 3: place(1), 4: place(2)}}
	next := &inventory{byID: map[uint32]*node{1: place(2, a), 2: place(1, a), 4: place(2), 5: place(1)}}
	got := moved(old, next)
	if want := map[uint32]bool{1: true, 2: true, 3: true}; !maps.Equal(got, want) {
		t.Errorf("moved %v, want %v", got, want)
	}
	flow := loader.Flow{}
	flow.Dir[0].VM, flow.Dir[1].VM = 4, 5
	if concerns(flow, got) {
		t.Error("a flow of those who stayed ends")
	}
	flow.Dir[1].VM = 2
	if !concerns(flow, got) {
		t.Error("a flow of one who moved goes on")
	}
}
