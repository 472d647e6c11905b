package app

import (
	"fmt"
	"testing"

	"pgregory.net/rapid"

	"github.com/vmgate/vmgate/internal/config"
)

func configOf(vms []string) *config.Config {
	cfg := &config.Config{Segments: []config.Segment{{Name: "s", Group: "default"}}}
	for _, name := range vms {
		cfg.VMs = append(cfg.VMs, config.VM{ID: name, Segment: "s"})
	}
	return cfg
}

func TestNumbers_NameKeepsItsNumberOverReloads(t *testing.T) {
	first, err := newNumbers().extend(configOf([]string{"a", "b", "c"}))
	if err != nil {
		t.Fatal(err)
	}
	second, err := first.extend(configOf([]string{"new", "c", "b"}))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"b", "c"} {
		if first.VMs[name] != second.VMs[name] {
			t.Errorf("%s was %d and is %d: flows that bear the number would change their VM", name, first.VMs[name], second.VMs[name])
		}
	}
	if second.VMs["new"] == first.VMs["a"] {
		t.Errorf("new got the number %d of a, which flows may still bear, while others are free", second.VMs["new"])
	}
}

func TestNumbers_GroupsMayBeZeroOthersNever(t *testing.T) {
	n, err := newNumbers().extend(configOf([]string{"a"}))
	if err != nil {
		t.Fatal(err)
	}
	if n.VMs["a"] == 0 || n.Segments["s"] == 0 {
		t.Errorf("0 stands for none, but was given: %+v", n)
	}
}

func TestNumbers_TooManyAreRefused(t *testing.T) {
	var names []string
	for i := range 4096 {
		names = append(names, fmt.Sprint("vm", i))
	}
	if _, err := newNumbers().extend(configOf(names)); err == nil {
		t.Error("4096 VMs were numbered, but 4095 is what the maps hold")
	}
}

func TestNumbers_NeverTwoNamesOneNumber(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		nums := newNumbers()
		for range rapid.IntRange(1, 8).Draw(t, "reloads") {
			names := rapid.SliceOfNDistinct(rapid.StringMatching(`[a-z]{1,2}`), 0, 20, rapid.ID[string]).Draw(t, "names")
			next, err := nums.extend(configOf(names))
			if err != nil {
				t.Fatal(err)
			}
			seen := map[uint32]string{}
			for name, number := range next.VMs {
				if other := seen[number]; other != "" {
					t.Fatalf("%s and %s are both %d", name, other, number)
				}
				seen[number] = name
			}
			nums = next
		}
	})
}
