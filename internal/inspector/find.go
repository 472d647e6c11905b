package inspector

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os/user"
	"slices"
	"strconv"

	"github.com/vmgate/vmgate/internal/config"
	"github.com/vmgate/vmgate/internal/source"
	"github.com/vmgate/vmgate/pkg/vmi/qemu"
)

// finder finds machines and opens their memory.
type finder struct {
	uids []uint32 // of those who are believed
	ways []qemu.Way
}

func newFinder(cfg *config.InspectorConfig, log *slog.Logger) finder {
	var f finder
	for _, name := range cfg.Users {
		uid, err := uidOf(name)
		if err != nil {
			log.Debug("no such user here", "user", name, "error", err)
			continue
		}
		f.uids = append(f.uids, uid)
	}
	for _, way := range cfg.Ways {
		f.ways = append(f.ways, qemu.Way(way))
	}
	return f
}

func uidOf(name string) (uint32, error) {
	u, err := user.Lookup(name)
	if err != nil {
		return 0, err
	}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	return uint32(uid), err
}

// open opens the memory of the machine of a name. It must be the only one of
// those who are believed: what others call their processes is theirs to choose.
func (f finder) open(ctx context.Context, name string) (source.Memory, error) {
	all, err := qemu.Find()
	if err != nil {
		return source.Memory{}, err
	}
	var strangers int
	all = slices.DeleteFunc(all, func(m qemu.Machine) bool {
		if m.Name == name && !slices.Contains(f.uids, m.UID) {
			strangers++
		}
		return m.Name != name || !slices.Contains(f.uids, m.UID)
	})
	switch {
	case len(all) == 0 && strangers > 0:
		return source.Memory{}, fmt.Errorf("cannot believe the QEMU that is called %q: its user is none of users", name)
	case len(all) == 0:
		return source.Memory{}, fmt.Errorf("cannot find a QEMU that is called %q", name)
	case len(all) > 1:
		return source.Memory{}, fmt.Errorf("cannot tell which is %q: %d QEMUs are called so", name, len(all))
	}
	return f.openMachine(ctx, all[0])
}

// openMachine believes the command line at first, since a monitor that somebody
// waits for has one client less to spare. Where that does not do, the monitors
// are asked.
func (f finder) openMachine(ctx context.Context, m qemu.Machine) (source.Memory, error) {
	mem, err := source.OpenMachine(ctx, m, "", f.ways...)
	if err == nil {
		return mem, nil
	}
	errs := []error{err}
	for _, monitor := range append(slices.Clone(m.Monitors), m.Libvirt...) {
		if mem, err = source.OpenMachine(ctx, m, monitor, f.ways...); err == nil {
			return mem, nil
		}
		errs = append(errs, err)
	}
	return source.Memory{}, errors.Join(errs...)
}
