package vmitest_test

import (
	"errors"
	"strings"
	"sync"
	"testing"

	"github.com/vmgate/vmgate/pkg/vmi"
	"github.com/vmgate/vmgate/pkg/vmi/vmitest"
)

// ram is memory of 4 MiB that keeps the contract, unless it is told not to.
type ram struct {
	mu     sync.RWMutex
	b      []byte
	closed bool

	ranges []vmi.Range                      // else all of it
	read   func(p []byte, addr uint64) bool // instead of a read, if it says so
	leaks  bool                             // after Close
}

func newRAM() *ram {
	m := &ram{b: make([]byte, 4<<20)}
	for i := range m.b {
		m.b[i] = byte(i * i >> 7)
	}
	return m
}

func (m *ram) ReadPhys(p []byte, addr uint64) error {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if m.closed && !m.leaks {
		return errors.New("closed")
	}
	if m.read != nil && m.read(p, addr) {
		return nil
	}
	if addr > uint64(len(m.b)) || uint64(len(p)) > uint64(len(m.b))-addr {
		return errors.New("no RAM")
	}
	copy(p, m.b[addr:])
	return nil
}

func (m *ram) Ranges() ([]vmi.Range, error) {
	if m.ranges != nil {
		return m.ranges, nil
	}
	return []vmi.Range{{Start: 0, End: uint64(len(m.b))}}, nil
}

func (m *ram) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed = true
	return nil
}

func TestCheckMemory(t *testing.T) {
	for _, c := range []struct {
		name  string
		spoil func(*ram)
		want  string
	}{
		{"as it should be", func(*ram) {}, ""},
		{"no ranges", func(m *ram) { m.ranges = []vmi.Range{} }, "none"},
		{"an empty range", func(m *ram) { m.ranges = []vmi.Range{{Start: 4096, End: 4096}} }, "is empty"},
		{"half a page", func(m *ram) { m.ranges = []vmi.Range{{Start: 0, End: 100}} }, "not whole pages"},
		{"not ascending", func(m *ram) { m.ranges = []vmi.Range{{Start: 8192, End: 16384}, {Start: 0, End: 4096}} }, "not above"},
		{"a range over the hole", func(m *ram) { m.ranges = []vmi.Range{{Start: 0, End: 8 << 30}} }, "devices below 4 GiB"},
		{"a range without RAM", func(m *ram) { m.ranges = []vmi.Range{{Start: 0, End: 8 << 20}} }, "no RAM"},
		{"zeros where there is no RAM", func(m *ram) { m.read = func(_ []byte, addr uint64) bool { return addr == 0xfee00000 } }, "is no error"},
		{"it wraps around", func(m *ram) { m.read = func(p []byte, addr uint64) bool { return addr+uint64(len(p)) < addr } }, "is no error"},
		{"pieces differ from the whole", func(m *ram) {
			m.read = func(p []byte, addr uint64) bool { return len(p) > 8 && len(p) < 4096 && addr%4096 != 0 }
		}, "at once than in pieces"},
		{"open after Close", func(m *ram) { m.leaks = true }, "after Close"},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := newRAM()
			c.spoil(m)
			err := vmitest.CheckMemory(m)
			if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want %q", err, c.want)
			}
			if !m.closed {
				t.Error("it is not closed")
			}
		})
	}
}

func TestSameMemory(t *testing.T) {
	a, b := newRAM(), newRAM()
	if err := vmitest.SameMemory(a, b); err != nil {
		t.Error(err)
	}
	for i := 0; i < len(b.b); i += 4096 {
		b.b[i]++
	}
	if err := vmitest.SameMemory(a, b); err == nil || !strings.Contains(err.Error(), "pages differ, the first at 0x0") {
		t.Errorf("%v", err)
	}
	empty := &ram{b: make([]byte, 1<<20)}
	if err := vmitest.SameMemory(empty, empty); err == nil {
		t.Error("two empty memories are taken for one guest's")
	}
}
