package app

import (
	"fmt"
	"slices"

	"github.com/vmgate/vmgate/internal/config"
	"github.com/vmgate/vmgate/pkg/loader"
)

// firstIDSPort begins the port ids of the IDS pairs; vNICs have those from 1 to
// firstIDSPort-1.
const firstIDSPort = loader.MaxPorts - 2*loader.MaxIDS

// idsInPort and idsOutPort are the port ids of an engine's pair.
func idsInPort(number int) uint32  { return firstIDSPort + 2*uint32(number) }
func idsOutPort(number int) uint32 { return idsInPort(number) + 1 }

// numbers gives every name of the configuration the number by which the kernel
// maps know it. A name keeps its number over reloads and restarts, because
// flows in the maps bear it. A segment's number is also its port id.
type numbers struct {
	Segments map[string]uint32 `json:"segments"`
	Groups   map[string]uint32 `json:"groups"`
	VMs      map[string]uint32 `json:"vms"` // VMs and routers
}

func newNumbers() *numbers {
	return &numbers{Segments: map[string]uint32{}, Groups: map[string]uint32{}, VMs: map[string]uint32{}}
}

// extend returns the numbers for a configuration: known names keep theirs, new
// names get the lowest that no name has.
func (n *numbers) extend(cfg *config.Config) (*numbers, error) {
	next := newNumbers()
	var segments, groups, vms []string
	for _, s := range cfg.Segments {
		segments = append(segments, s.Name)
		if !slices.Contains(groups, s.Group) {
			groups = append(groups, s.Group)
		}
	}
	for _, vm := range cfg.VMs {
		vms = append(vms, vm.ID)
	}
	for _, r := range cfg.Routers {
		vms = append(vms, r.ID)
	}
	for _, part := range []struct {
		what        string
		names       []string
		old, new    map[string]uint32
		first, last uint32
	}{
		{"segments", segments, n.Segments, next.Segments, 1, firstIDSPort - 1},
		{"groups", groups, n.Groups, next.Groups, 0, 255},
		{"VMs and routers", vms, n.VMs, next.VMs, 1, loader.MaxVMs - 1},
	} {
		if err := assign(part.names, part.old, part.new, part.first, part.last); err != nil {
			return nil, fmt.Errorf("cannot number the %s: %w", part.what, err)
		}
	}
	return next, nil
}

// assign fills next with a number in [first, last] for each name. The numbers
// of names that have gone are used again only when no other is free, since
// flows may still bear them.
func assign(names []string, old, next map[string]uint32, first, last uint32) error {
	used, stale := map[uint32]bool{}, map[uint32]bool{}
	for _, number := range old {
		stale[number] = true
	}
	for _, name := range names {
		if number, ok := old[name]; ok {
			next[name] = number
			used[number] = true
		}
	}
	for _, name := range names {
		if _, ok := next[name]; ok {
			continue
		}
		number, ok := lowest(first, last, func(i uint32) bool { return !used[i] && !stale[i] })
		if !ok {
			number, ok = lowest(first, last, func(i uint32) bool { return !used[i] })
		}
		if !ok {
			return fmt.Errorf("there are %d, at most %d are supported", len(names), last-first+1)
		}
		next[name] = number
		used[number] = true
	}
	return nil
}

func lowest(first, last uint32, free func(uint32) bool) (uint32, bool) {
	for i := first; i <= last; i++ {
		if free(i) {
			return i, true
		}
	}
	return 0, false
}
