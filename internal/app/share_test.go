package app

import (
	"testing"

	"github.com/vmgate/vmgate/pkg/loader"
)

func TestSlotsOf(t *testing.T) {
	for name, c := range map[string]struct {
		engines int
		gone    []bool
		each    []int // slots of each
	}{
		"none":                  {0, nil, []int{64}},
		"one":                   {1, []bool{false}, []int{64}},
		"one, gone":             {1, []bool{true}, []int{64}},
		"two":                   {2, []bool{false, false}, []int{32, 32}},
		"two, not yet running":  {2, nil, []int{32, 32}},
		"one of two gone":       {2, []bool{false, true}, []int{64, 0}},
		"both gone":             {2, []bool{true, true}, []int{32, 32}},
		"one of four gone":      {4, []bool{false, true, false, false}, []int{22, 0, 21, 21}},
		"two of three gone":     {3, []bool{true, false, true}, []int{0, 64, 0}},
		"eight, which is all":   {8, make([]bool, 8), []int{8, 8, 8, 8, 8, 8, 8, 8}},
		"of eight one is there": {8, []bool{true, true, true, true, true, true, true, false}, []int{0, 0, 0, 0, 0, 0, 0, 64}},
	} {
		slots, each := slotsOf(c.engines, c.gone), [loader.MaxIDS]int{}
		for _, its := range slots {
			each[its]++
		}
		for number, want := range c.each {
			if each[number] != want {
				t.Errorf("%s: %v, want %v", name, each, c.each)
				break
			}
		}
		// A flow of an engine that is there stays with it.
		for slot, its := range slotsOf(c.engines, nil) {
			if int(its) < len(c.gone) && !c.gone[its] && slots[slot] != its {
				t.Errorf("%s: slot %d went from %d to %d", name, slot, its, slots[slot])
			}
		}
	}
}
