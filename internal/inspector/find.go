package inspector

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/vmgate/vmgate/internal/config"
	"github.com/vmgate/vmgate/internal/source"
	"github.com/vmgate/vmgate/pkg/vmi/qemu"
)

// finder finds machines and opens their memory.
type finder struct {
	uids []uint32 // of those who are believed
	ways []qemu.Way
}

func newFinder(cfg *config.InspectorConfig) (finder, error) {
	f := finder{uids: qemu.Users(cfg.Users...)}
	if len(f.uids) == 0 {
		return finder{}, fmt.Errorf("cannot believe anybody: none of the users %s is here", strings.Join(cfg.Users, ", "))
	}
	for _, way := range cfg.Ways {
		f.ways = append(f.ways, qemu.Way(way))
	}
	return f, nil
}

// open opens the memory of the machine of a name. It must be the only one of
// those who are believed: what others call their processes is theirs to choose.
func (f finder) open(ctx context.Context, name string) (source.Memory, error) {
	m, err := qemu.ByName(name, f.uids...)
	if err != nil {
		return source.Memory{}, err
	}
	return f.openMachine(ctx, m)
}

// openMachine believes the command line at first, since a monitor that somebody
// waits for has one client less to spare. Where that does not do, the monitors
// are asked.
func (f finder) openMachine(ctx context.Context, m qemu.Machine) (source.Memory, error) {
	mem, first := source.OpenMachine(ctx, m, "", f.ways...)
	if first == nil {
		return mem, nil
	}
	for _, monitor := range append(slices.Clone(m.Monitors), m.Libvirt...) {
		mem, err := source.OpenMachine(ctx, m, monitor, f.ways...)
		if err == nil {
			return mem, nil
		}
		first = fmt.Errorf("%w; %w", first, err)
	}
	return source.Memory{}, first
}
