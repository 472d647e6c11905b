package app

import (
	"testing"

	"github.com/vmgate/vmgate/pkg/snort"
	"github.com/vmgate/vmgate/pkg/verdict"
)

func TestRepeats_AFewAreToldTheRestIsCounted(t *testing.T) {
	var r repeats
	process := func(pid uint32) *verdict.Process {
		return &verdict.Process{Instance: verdict.Instance{VM: "a", PID: pid}}
	}
	told := func(sid uint32, vm string, p *verdict.Process, n int) (told int) {
		for range n {
			if !r.enough(snort.Alert{GID: 1, SID: sid, Action: snort.ActionDrop}, vm, p) {
				told++
			}
		}
		return told
	}
	for range 2 { // seconds
		if n := told(1, "a", process(1), 1000); n != toldPerSecond {
			t.Errorf("%d of a storm were told", n)
		}
		for name, n := range map[string]int{
			"another process": told(1, "a", process(2), 1), "another rule": told(2, "a", process(1), 1),
			"not traced": told(1, "a", nil, 1), "another VM": told(1, "b", nil, 1),
		} {
			if n != 1 {
				t.Errorf("%s: not told", name)
			}
		}
		untold := r.next()
		if len(untold) != 1 || untold[0].more() != 1000-toldPerSecond || untold[0].process.PID != 1 || untold[0].vm != "a" {
			t.Errorf("untold: %+v", untold)
		}
	}
}

func TestRepeats_KindsAreBounded(t *testing.T) {
	var r repeats
	told := 0
	for sid := range uint32(100_000) {
		if !r.enough(snort.Alert{SID: sid}, "a", nil) {
			told++
		}
	}
	if told != maxAlertKinds+toldPerSecond || len(r.kinds) != maxAlertKinds+1 {
		t.Errorf("%d told of %d kinds", told, len(r.kinds))
	}
	untold := r.next()
	if len(untold) != 1 || untold[0].more() != 100_000-told {
		t.Errorf("untold: %d kinds", len(untold))
	}
}

func TestRepeats_IntrospectionIsAskedSparingly(t *testing.T) {
	var r repeats
	asked := 0
	for range 1000 {
		if r.mayTrace("a") {
			asked++
		}
	}
	if asked != tracedPerSecond || !r.mayTrace("b") {
		t.Errorf("asked %d times", asked)
	}
	if r.next(); !r.mayTrace("a") {
		t.Error("not asked in the next second")
	}
}
