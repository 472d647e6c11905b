package qemu

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"

	"github.com/vmgate/vmgate/pkg/vmi"
	"github.com/vmgate/vmgate/pkg/vmi/qmp"
)

// Way is a way to a machine's memory.
type Way string

// The ways, in the order in which Open tries them. Each is some ten times slower
// than the one before.
const (
	// ByDescriptor reads the memory file that QEMU has open, with or without a
	// name. It takes the right to trace QEMU.
	ByDescriptor Way = "descriptor"
	// ByFile reads the memory file by its name. It takes the right to read that.
	ByFile Way = "file"
	// ByProcess reads QEMU's own memory. It takes the right to trace QEMU.
	ByProcess Way = "process"
	// ByMonitor has QEMU write its memory out.
	ByMonitor Way = "monitor"
)

// Ways lists all of them in that order.
func Ways() []Way { return []Way{ByDescriptor, ByFile, ByProcess, ByMonitor} }

// Open opens the machine's memory by the first of the ways that works. monitor,
// if it is not empty, is the socket of a monitor that is asked where RAM is;
// otherwise the command line is believed, and ByMonitor cannot be.
func (m Machine) Open(ctx context.Context, monitor string, ways ...Way) (vmi.Memory, Way, error) {
	mem, way, err := m.open(ctx, monitor, ways)
	if err != nil {
		return nil, "", fmt.Errorf("cannot read the memory of QEMU process %d: %w", m.PID, err)
	}
	return mem, way, nil
}

func (m Machine) open(ctx context.Context, monitor string, ways []Way) (vmi.Memory, Way, error) {
	var errs []error
	for _, way := range Ways() {
		if !slices.Contains(ways, way) {
			continue
		}
		mem, err := m.openBy(ctx, way, monitor)
		if err == nil {
			return mem, way, nil
		}
		errs = append(errs, fmt.Errorf("by %s: %w", way, err))
	}
	if len(errs) == 0 {
		return nil, "", errors.New("no way is allowed")
	}
	return nil, "", eachOf(errs)
}

// eachOf joins errors in one line.
func eachOf(errs []error) error {
	joined := errs[0]
	for _, err := range errs[1:] {
		joined = fmt.Errorf("%w; %w", joined, err)
	}
	return joined
}

func (m Machine) openBy(ctx context.Context, way Way, monitor string) (vmi.Memory, error) {
	switch way {
	case ByFile:
		if m.Backing != SharedFile {
			return nil, errors.New("its RAM is in no shared file with a name")
		}
		return vmi.OpenFile(m.File, m.Type)
	case ByMonitor:
		if monitor == "" {
			return nil, errors.New("no monitor is known")
		}
		return OpenMonitor(ctx, monitor)
	}
	layout, maps, err := m.locate(ctx, monitor)
	if err != nil {
		return nil, err
	}
	if way == ByProcess {
		return vmi.OpenProcess(m.PID, vmi.ProcessRAM{Layout: layout})
	}
	return m.openDescriptor(layout, maps)
}

// locate says where in the process RAM is.
func (m Machine) locate(ctx context.Context, monitor string) (vmi.Layout, []mapping, error) {
	maps, err := os.Open("/proc/" + strconv.Itoa(m.PID) + "/maps")
	if err != nil {
		return vmi.Layout{}, nil, err
	}
	defer maps.Close()
	all, err := parseMaps(maps)
	if err != nil {
		return vmi.Layout{}, nil, err
	}
	if monitor == "" {
		layout, err := m.bySize(all)
		return layout, all, err
	}
	asked, err := qmp.Dial(ctx, monitor)
	if err != nil {
		return vmi.Layout{}, nil, err
	}
	defer asked.Close()
	layout, err := layoutBy(ctx, asked)
	return layout, all, err
}

// bySize believes the command line.
func (m Machine) bySize(all []mapping) (vmi.Layout, error) {
	if m.Backing == Several {
		return vmi.Layout{}, errors.New("its RAM is in several pieces; name a monitor of it, which knows where")
	}
	at, err := sized(all, m.RAM)
	if err != nil {
		return vmi.Layout{}, err
	}
	layout, err := vmi.LayoutFor(m.Type, m.RAM)
	if err != nil {
		return vmi.Layout{}, err
	}
	parts := layout.Parts()
	for i := range parts {
		parts[i].Offset += at.from
	}
	return vmi.LayoutOf(parts...)
}

// openDescriptor opens the file behind RAM. All of RAM must be in one.
func (m Machine) openDescriptor(layout vmi.Layout, maps []mapping) (vmi.Memory, error) {
	parts := layout.Parts()
	first, _ := covering(maps, parts[0].Offset)
	if !first.shared {
		return nil, errors.New("its RAM is in no shared file")
	}
	for i := range parts {
		at, ok := covering(maps, parts[i].Offset)
		if !ok || !at.shared || at.inode != first.inode || at.major != first.major || at.minor != first.minor || at.to-parts[i].Offset < parts[i].Size {
			return nil, errors.New("its RAM is not in one shared file")
		}
		parts[i].Offset += at.offset - at.from
	}
	inFile, err := vmi.LayoutOf(parts...)
	if err != nil {
		return nil, err
	}
	path, err := descriptorOf(m.PID, first)
	if err != nil {
		return nil, err
	}
	return vmi.OpenLayout(path, inFile)
}
