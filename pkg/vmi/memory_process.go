package vmi

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
)

// ProcessRAM says where a monitor's process keeps a guest's RAM.
type ProcessRAM struct {
	// Address is where RAM begins in the process: what QEMU's monitor answers to
	// "gpa2hva 0". If it is 0 the only mapping of that size is taken.
	Address uint64
	Size    uint64 // bytes
	Machine string // as for LayoutFor
	// Layout, if it has any part, stands for all of the above: its offsets are the
	// process's addresses.
	Layout Layout
}

// OpenProcess opens the memory of a guest whose monitor (QEMU) keeps it to
// itself, through that process's own memory; where the monitor has a memory file,
// also one without a name (/proc/PID/fd/N), OpenFile is ten times as fast. It
// needs the right to trace the process now, but not for later reads.
//
// It reads /proc/PID/mem rather than by process_vm_readv: as fast, and bound to
// the process itself instead of to its number, which another may get.
func OpenProcess(pid int, ram ProcessRAM) (Memory, error) {
	fail := func(err error) (Memory, error) {
		return nil, fmt.Errorf("cannot use process %d as guest memory: %w", pid, err)
	}
	layout, given := ram.Layout, len(ram.Layout.parts) > 0
	if given {
		ram.Address = 0
	} else {
		var err error
		if layout, err = LayoutFor(ram.Machine, ram.Size); err != nil {
			return fail(err)
		}
	}
	proc := "/proc/" + strconv.Itoa(pid)
	mem, err := os.Open(proc + "/mem")
	if err != nil {
		return fail(err)
	}
	m := &processMemory{mem: mem, layout: layout, base: ram.Address}
	if m.pagemap, err = os.Open(proc + "/pagemap"); err == nil && m.base == 0 && !given {
		m.base, err = mappingOf(proc+"/maps", ram.Size)
	}
	if err == nil {
		err = m.ReadPhys(make([]byte, 8), layout.parts[0].phys)
	}
	if err != nil {
		_ = m.Close()
		return fail(err)
	}
	return m, nil
}

// mappingOf finds the only readable mapping of size bytes.
func mappingOf(maps string, size uint64) (uint64, error) {
	f, err := os.Open(maps)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	found := uint64(0)
	for lines := bufio.NewScanner(f); lines.Scan(); {
		var from, to uint64
		var mode string
		if _, err := fmt.Sscanf(lines.Text(), "%x-%x %s", &from, &to, &mode); err != nil {
			continue
		}
		switch {
		case to-from != size || !strings.HasPrefix(mode, "r"):
		case found != 0:
			return 0, fmt.Errorf("it has several mappings of %d bytes; ask its monitor: gpa2hva 0", size)
		default:
			found = from
		}
	}
	if found == 0 {
		return 0, fmt.Errorf("it has no mapping of %d bytes", size)
	}
	return found, nil
}

// processMemory is guest memory within another process.
type processMemory struct {
	mem, pagemap *os.File
	layout       Layout
	base         uint64
}

func (m *processMemory) ReadPhys(p []byte, addr uint64) error {
	for len(p) > 0 {
		off, run, ok := m.layout.Offset(addr)
		if !ok {
			return fmt.Errorf("no guest RAM at physical address %#x", addr)
		}
		n := min(uint64(len(p)), run)
		if _, err := m.mem.ReadAt(p[:n], int64(m.base+off)); err != nil {
			if errors.Is(err, io.EOF) {
				err = errors.New("the process has ended")
			}
			return fmt.Errorf("cannot read guest memory at %#x: %w", addr, err)
		}
		p, addr = p[n:], addr+n
	}
	return nil
}

// Flags of an entry of pagemap (Documentation/admin-guide/mm/pagemap.rst).
const pagemapUsed = 1<<63 | 1<<62 // in memory, or swapped out

func (m *processMemory) Ranges() ([]Range, error) {
	var out []Range
	buf := make([]byte, 64<<10)
	for _, p := range m.layout.parts {
		for done := uint64(0); done < p.size; {
			n := min(uint64(len(buf)), (p.size-done)/pageSize*8)
			if _, err := m.pagemap.ReadAt(buf[:n], int64((m.base+p.offset+done)/pageSize*8)); err != nil {
				return nil, fmt.Errorf("cannot find the used parts of guest memory: %w", err)
			}
			for i := uint64(0); i < n; i += 8 {
				if binary.LittleEndian.Uint64(buf[i:])&pagemapUsed == 0 {
					continue
				}
				at := p.phys + done + i/8*pageSize
				if last := len(out) - 1; last >= 0 && out[last].End == at {
					out[last].End += pageSize
				} else {
					out = append(out, Range{at, at + pageSize})
				}
			}
			done += n / 8 * pageSize
		}
	}
	return out, nil
}

func (m *processMemory) Close() error {
	err := m.mem.Close()
	if m.pagemap != nil {
		err = errors.Join(err, m.pagemap.Close())
	}
	return err
}
