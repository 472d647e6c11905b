package vmi

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"sync"

	"golang.org/x/sys/unix"
)

// deviceMemory is guest memory that a device of this machine shows: a gateway
// which is a virtual machine itself reads its neighbours so, without anything
// on the host. It is mapped read-only, and the device that QEMU makes of a
// backend with readonly=on ignores what is written to it.
//
// A device does not tell which of its pages are holes in the file behind it:
// reading one makes the host allocate it.
type deviceMemory struct {
	layout Layout

	mu   sync.RWMutex // against munmap
	data []byte       // nil once it is closed
}

// mapDevice maps size bytes of an opened device from an offset on.
func mapDevice(f *os.File, offset int64, size uint64, layout Layout) (Memory, error) {
	conn, err := f.SyscallConn()
	if err != nil {
		return nil, err
	}
	m := &deviceMemory{layout: layout}
	var mapErr error
	err = conn.Control(func(fd uintptr) {
		m.data, mapErr = unix.Mmap(int(fd), offset, int(size), unix.PROT_READ, unix.MAP_SHARED)
	})
	if err = errors.Join(err, mapErr); err != nil {
		return nil, err
	}
	_ = unix.Madvise(m.data, unix.MADV_DONTDUMP)
	return m, nil
}

func (m *deviceMemory) ReadPhys(p []byte, addr uint64) error {
	for len(p) > 0 {
		off, run, ok := m.layout.Offset(addr)
		if !ok {
			return fmt.Errorf("no guest RAM at physical address %#x", addr)
		}
		n := min(uint64(len(p)), run)
		if err := m.copy(p[:n], off); err != nil {
			return fmt.Errorf("cannot read guest memory at %#x: %w", addr, err)
		}
		p, addr = p[n:], addr+n
	}
	return nil
}

// copy reads from the mapping. A device that is unplugged meanwhile raises
// SIGBUS, which is made an error.
func (m *deviceMemory) copy(p []byte, off uint64) (err error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if m.data == nil {
		return os.ErrClosed
	}
	if off > uint64(len(m.data)) || uint64(len(p)) > uint64(len(m.data))-off {
		return errors.New("it is beyond the device's end")
	}
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		switch fault := recover().(type) {
		case nil:
		case runtime.Error:
			err = errors.New("the device is gone")
		default:
			panic(fault)
		}
	}()
	copy(p, m.data[off:])
	return nil
}

func (m *deviceMemory) Ranges() ([]Range, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if m.data == nil {
		return nil, os.ErrClosed
	}
	return m.layout.Ranges(), nil
}

func (m *deviceMemory) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.data == nil {
		return nil
	}
	data := m.data
	m.data = nil
	return unix.Munmap(data)
}
