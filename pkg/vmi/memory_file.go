package vmi

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// OpenFile opens the shared memory file of a virtual machine (QEMU's
// memory-backend-file, or /proc/PID/fd/N of a memfd backend) for reading.
// machine is as for LayoutFor.
//
// Holes in the file stay holes, and a file that the host truncates under its
// reader gives errors.
func OpenFile(path string, machine string) (Memory, error) {
	return OpenAs(path, FormatRaw, machine)
}

// OpenLayout is OpenFile for a file that holds RAM as layout says.
func OpenLayout(path string, layout Layout) (Memory, error) {
	f, size, err := openMemoryFile(path)
	if err != nil {
		return nil, err
	}
	if layout.end() > size {
		_ = f.Close()
		return nil, fmt.Errorf("cannot use %s as guest memory: it has %d bytes, and RAM would end at %d", path, size, layout.end())
	}
	return &fileMemory{file: f, layout: layout, mapping: newMapping(f, size)}, nil
}

// openMemoryFile opens a regular file and tells its size.
func openMemoryFile(path string) (*os.File, uint64, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0) // O_NONBLOCK: a FIFO must not hang us
	if err != nil {
		return nil, 0, fmt.Errorf("cannot open guest memory: %w", err)
	}
	size, err := memorySize(f)
	if err != nil {
		_ = f.Close()
		return nil, 0, fmt.Errorf("cannot use %s as guest memory: %w", path, err)
	}
	return f, size, nil
}

func memorySize(f *os.File) (uint64, error) {
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	switch {
	case info.IsDir():
		return 0, errors.New("it is a directory; name the file of the memory backend")
	case !info.Mode().IsRegular():
		return 0, fmt.Errorf("it is no regular file (%v)", info.Mode()&fs.ModeType)
	case info.Size() == 0:
		return 0, errors.New("it is empty; has the virtual machine been started?")
	}
	return uint64(info.Size()), nil
}

// fileMemory is guest memory in one file.
type fileMemory struct {
	file    *os.File
	layout  Layout
	mapping *mapping // may be nil
}

func (m *fileMemory) ReadPhys(p []byte, addr uint64) error {
	for len(p) > 0 {
		off, run, ok := m.layout.Offset(addr)
		if !ok {
			return fmt.Errorf("no guest RAM at physical address %#x", addr)
		}
		n := min(uint64(len(p)), run)
		if !m.mapping.read(p[:n], off) {
			if _, err := m.file.ReadAt(p[:n], int64(off)); err != nil {
				return fmt.Errorf("cannot read guest memory at %#x: %w", addr, err)
			}
			m.mapping.learn(p[:n], off)
		}
		p, addr = p[n:], addr+n
	}
	return nil
}

func (m *fileMemory) Ranges() ([]Range, error) {
	m.mapping.refresh()
	var out []Range
	for _, p := range m.layout.parts {
		err := m.eachData(p.offset, p.offset+p.size, func(from, to uint64) {
			// Whole pages, where a dump's headers have moved them off the file's.
			start := max((p.phys+from-p.offset)&^pageMask, p.phys)
			end := min((p.phys+to-p.offset+pageMask)&^pageMask, p.phys+p.size)
			if n := len(out); n > 0 && out[n-1].End >= start {
				out[n-1].End = end
				return
			}
			out = append(out, Range{start, end})
		})
		if err != nil {
			return nil, err
		}
	}
	return out, nil
}

// eachData calls fn for each stretch of the file's [from, to) that is not a hole.
func (m *fileMemory) eachData(from, to uint64, fn func(from, to uint64)) error {
	conn, err := m.file.SyscallConn()
	if err != nil {
		return fmt.Errorf("cannot find the used parts of guest memory: %w", err)
	}
	var inner error
	err = conn.Control(func(fd uintptr) { inner = seekData(int(fd), from, to, fn) })
	if err = errors.Join(err, inner); err != nil {
		return fmt.Errorf("cannot find the used parts of guest memory: %w", err)
	}
	return nil
}

func seekData(fd int, from, to uint64, fn func(from, to uint64)) error {
	for from < to {
		data, err := unix.Seek(fd, int64(from), unix.SEEK_DATA)
		switch {
		case errors.Is(err, unix.ENXIO): // holes to the end
			return nil
		case errors.Is(err, unix.EINVAL): // the file system cannot tell (hugetlbfs)
			fn(from, to)
			return nil
		case err != nil:
			return err
		case uint64(data) >= to:
			return nil
		}
		hole, err := unix.Seek(fd, data, unix.SEEK_HOLE)
		if err != nil {
			if errors.Is(err, unix.ENXIO) { // punched or truncated in between
				return nil
			}
			return err
		}
		if hole <= data {
			return nil
		}
		fn(uint64(data), min(uint64(hole), to))
		from = uint64(hole)
	}
	return nil
}

func (m *fileMemory) Close() error { return errors.Join(m.mapping.close(), m.file.Close()) }
