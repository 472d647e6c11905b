// Package source opens the guests that a configuration names, whichever way
// leads to their memory, and keeps them open: it waits for those that boot,
// notices those that were replaced, and tries again where it failed.
package source

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/vmgate/vmgate/internal/config"
	"github.com/vmgate/vmgate/pkg/vmi"
	"github.com/vmgate/vmgate/pkg/vmi/qemu"
)

// Opened is a guest that is open.
type Opened struct {
	vmi.Guest
	// Same says why what is open is no longer the machine that it was opened for:
	// QEMU has ended, or another memory file stands at the path. It is nil as long
	// as it is. The guest itself says when its kernel is another.
	Same  func(ctx context.Context) error
	Close func() error
}

// Memory is a guest's memory that is open, and whether it is still the machine's.
type Memory struct {
	vmi.Memory
	Same func(ctx context.Context) error // as in Opened

	registers func(ctx context.Context) (vmi.Registers, error) // as in vmi.Options
	release   func()                                           // nil: there is nothing but the memory
}

// Close closes the memory.
func (m Memory) Close() error {
	err := m.Memory.Close()
	if m.release != nil {
		m.release()
	}
	return err
}

// Open opens a guest as the configuration says.
func Open(ctx context.Context, place config.Memory, opt vmi.Options) (*Opened, error) {
	if place.Inspector != (config.Inspector{}) {
		return openInspector(ctx, place.Inspector) // which has options of its own
	}
	mem, err := OpenMemory(ctx, place)
	if err != nil {
		return nil, err
	}
	opened, err := mem.Discover(ctx, Help(place, opt))
	if err == nil && place.Monitor != (config.Monitor{}) {
		opened = impatiently(opened) // one read may take longer than a decision can wait
	}
	return opened, err
}

// Discover discovers the guest in the memory, which is closed with it, or at once
// where that fails.
func (m Memory) Discover(ctx context.Context, opt vmi.Options) (*Opened, error) {
	opt.Registers = m.registers
	guest, err := vmi.Open(ctx, m.Memory, opt) // itself: it may be more than a vmi.Memory
	if err != nil {
		return nil, errors.Join(err, m.Close())
	}
	return &Opened{Guest: guest, Same: m.Same, Close: m.Close}, nil
}

// Help adds to the options what the configuration tells of a guest's kernel.
func Help(place config.Memory, opt vmi.Options) vmi.Options {
	opt.BTF, opt.SystemMap = place.BTF, place.SystemMap
	return opt
}

// OpenMemory opens memory that this machine has. The caller closes it.
func OpenMemory(ctx context.Context, place config.Memory) (Memory, error) {
	switch {
	case place.File != "":
		return openFile(place.File, place.Machine)
	case place.Process != config.Process{}:
		return openProcess(ctx, place.Process)
	case place.Monitor != config.Monitor{}:
		mem, err := qemu.OpenMonitor(ctx, place.Monitor.Socket)
		return readable(mem, err)
	case place.Ivshmem != config.Ivshmem{}:
		mem, err := vmi.OpenIvshmem(vmi.Ivshmem{Size: uint64(place.Ivshmem.Size), Device: place.Ivshmem.Device, Machine: place.Machine})
		return readable(mem, err)
	case place.NVDIMM != config.NVDIMM{}:
		mem, err := vmi.OpenNVDIMM(vmi.NVDIMM{Size: uint64(place.NVDIMM.Size), Address: uint64(place.NVDIMM.Address), Machine: place.Machine})
		return readable(mem, err)
	}
	return Memory{}, errors.New("cannot open a guest's memory: the configuration names no place")
}

// openFile opens a memory file. A machine that was switched off and on has a new
// one, and the old one, which is still open, would answer as if nothing had
// happened.
func openFile(path, machine string) (Memory, error) {
	was, err := os.Stat(path)
	if err != nil {
		return Memory{}, fmt.Errorf("cannot find the memory file: %w", err)
	}
	mem, err := vmi.OpenFile(path, machine)
	if err != nil {
		return Memory{}, err
	}
	return Memory{Memory: mem, Same: func(context.Context) error {
		if now, err := os.Stat(path); err != nil || !os.SameFile(was, now) {
			return errors.New("the memory file was replaced")
		}
		return nil
	}}, nil
}

func openProcess(ctx context.Context, place config.Process) (Memory, error) {
	machine, err := find(place)
	if err != nil {
		return Memory{}, fmt.Errorf("cannot find the guest's QEMU: %w", err)
	}
	return OpenMachine(ctx, machine, place.Monitor, qemu.ByDescriptor, qemu.ByProcess)
}

func find(place config.Process) (qemu.Machine, error) {
	if place.PIDFile != "" {
		return qemu.ByPIDFile(place.PIDFile)
	}
	machine, err := qemu.ByName(place.Name, append(qemu.Users(believed...), uint32(os.Geteuid()))...)
	if err != nil && place.Name != "" {
		err = fmt.Errorf("%w (of users %s; one of another is to be named by its pid-file)", err, strings.Join(believed, ", "))
	}
	return machine, err
}

// believed are the users whose QEMUs are what they call themselves.
var believed = []string{"root", "libvirt-qemu", "qemu"}

// OpenMachine opens the memory of a machine that was found. What QEMU leaves
// behind when it ends stays readable, and would answer on.
func OpenMachine(ctx context.Context, machine qemu.Machine, monitor string, ways ...qemu.Way) (Memory, error) {
	process, err := machine.Hold()
	if err != nil {
		return Memory{}, err
	}
	mem, way, err := machine.Open(ctx, monitor, ways...)
	if err != nil {
		process.Release()
		return Memory{}, err
	}
	if !process.Alive() { // its number may have been another's meanwhile
		process.Release()
		return Memory{}, errors.Join(errors.New("cannot open the guest's memory: its QEMU has just ended"), mem.Close())
	}
	opened := Memory{Memory: mem, release: process.Release, Same: func(context.Context) error {
		if !process.Alive() {
			return errors.New("its QEMU has ended")
		}
		return nil
	}}
	if monitor != "" && way != qemu.ByMonitor { // which has the monitor's one connection
		opened.registers = func(ctx context.Context) (vmi.Registers, error) { return qemu.Registers(ctx, monitor) }
	}
	return opened, nil
}

// readable is for memory that is the machine's as long as it can be read.
func readable(mem vmi.Memory, err error) (Memory, error) {
	if err != nil {
		return Memory{}, err
	}
	return Memory{Memory: mem, Same: func(context.Context) error { return mem.ReadPhys(make([]byte, 8), 0) }}, nil
}
