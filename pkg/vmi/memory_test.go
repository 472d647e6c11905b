package vmi

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestLayoutFor(t *testing.T) {
	const gib = 1 << 30
	for _, c := range []struct {
		machine   string
		size      uint64
		phys, off uint64
		ok        bool
	}{
		{"", 128 << 20, 0x1000, 0x1000, true},
		{"q35", 0xb0000000 - pageSize, 0xb0000000 - 2*pageSize, 0xb0000000 - 2*pageSize, true},
		{"q35", 0xb0000000, 0x7ffff000, 0x7ffff000, true},
		{"q35", 0xb0000000, 0x80000000, 0, false},
		{"pc-q35-7.2", 5 * gib, fourGiB, 0x80000000, true},
		{"pc", 0xdffff000, 0xdfffe000, 0xdfffe000, true},
		{"pc-i440fx-7.2", 4 * gib, 0xc0000000, 0, false},
		{"pc", 4 * gib, fourGiB, 0xc0000000, true},
		{"pc", 4 * gib, fourGiB + gib, 0, false},
	} {
		l, err := LayoutFor(c.machine, c.size)
		if err != nil {
			t.Fatal(err)
		}
		if off, _, ok := l.Offset(c.phys); off != c.off || ok != c.ok || l.Size() != c.size {
			t.Errorf("%s %#x: %#x is at %#x, %v; want %#x, %v", c.machine, c.size, c.phys, off, ok, c.off, c.ok)
		}
	}
	for machine, size := range map[string]uint64{"microvm": gib, "pc": 0, "q35": 4095} {
		if _, err := LayoutFor(machine, size); err == nil {
			t.Errorf("%s with %d bytes: no error", machine, size)
		}
	}
}

func TestOpenFile_Errors(t *testing.T) {
	dir := t.TempDir()
	fifo, empty, odd := filepath.Join(dir, "fifo"), filepath.Join(dir, "empty"), filepath.Join(dir, "odd")
	if err := errors.Join(syscall.Mkfifo(fifo, 0o600), os.WriteFile(empty, nil, 0o600), os.WriteFile(odd, []byte("x"), 0o600)); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		filepath.Join(dir, "none"): "no such file", dir: "is a directory", fifo: "no regular file", empty: "is empty", odd: "multiple of 4096",
	} {
		if _, err := OpenFile(path, ""); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", path, err, want)
		}
	}
	if _, err := OpenFile(filepath.Join(dir, "none"), ""); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("missing file: %v", err)
	}
}

// ramFile makes a sparse file of 64 MiB on tmpfs, as a guest's memory is.
func ramFile(t testing.TB) (*os.File, Memory) {
	t.Helper()
	f, err := os.CreateTemp("/dev/shm", "vmi-test-")
	if err != nil {
		t.Skip(err)
	}
	t.Cleanup(func() { _ = os.Remove(f.Name()); _ = f.Close() })
	if err := f.Truncate(64 << 20); err != nil {
		t.Fatal(err)
	}
	m, err := OpenFile(f.Name(), "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = m.Close() })
	return f, m
}

func TestFileMemory_HolesReadAsZerosAndStayHoles(t *testing.T) {
	f, m := ramFile(t)
	if _, err := f.WriteAt(bytes.Repeat([]byte("x"), pageSize), 1<<20); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 4<<20)
	if err := m.ReadPhys(buf, 0); err != nil {
		t.Fatal(err)
	}
	if buf[0] != 0 || buf[1<<20] != 'x' || buf[2<<20] != 0 {
		t.Error("wrong bytes")
	}
	var st syscall.Stat_t
	if err := syscall.Fstat(int(f.Fd()), &st); err != nil {
		t.Fatal(err)
	}
	if st.Blocks != pageSize/512 {
		t.Errorf("the file has %d blocks: reading has filled holes", st.Blocks)
	}
	ranges, err := m.Ranges()
	if want := []Range{{1 << 20, 1<<20 + pageSize}}; err != nil || !slices.Equal(ranges, want) {
		t.Errorf("ranges %#x, %v; want %#x", ranges, err, want)
	}
}

func TestFileMemory_ShrinkingFileIsAnError(t *testing.T) {
	f, m := ramFile(t)
	if err := f.Truncate(pageSize); err != nil {
		t.Fatal(err)
	}
	if err := m.ReadPhys(make([]byte, 8), 1<<20); err == nil {
		t.Error("read beyond the end")
	}
	if err := m.ReadPhys(make([]byte, 8), 1<<40); err == nil {
		t.Error("read where there is no RAM")
	}
	if _, err := Open(t.Context(), m, Options{}); err == nil {
		t.Error("opened")
	}
}

func TestOpen_NoKernel(t *testing.T) {
	f, m := ramFile(t)
	open := func(what string) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		if g, err := Open(ctx, m, Options{}); g != nil || !errors.Is(err, ErrNotReady) && !errors.Is(err, ErrNotUnderstood) {
			t.Errorf("%s: %v, %v", what, g, err)
		}
	}
	open("nothing but a hole")
	noise := make([]byte, 64<<20)
	src := rand.NewChaCha8([32]byte{1})
	_, _ = src.Read(noise)
	if _, err := f.WriteAt(noise, 0); err != nil {
		t.Fatal(err)
	}
	open("noise")
	for i := range int64(100) { // a guest that pretends
		text := "OSRELEASE=6.1.0\nSYMBOL(_stext)=ffffffff81000000\nNUMBER(phys_base)=0\nSYMBOL(init_top_pgt)=ffffffff82000000\n"
		if _, err := f.WriteAt([]byte(text), i*3*pageSize); err != nil {
			t.Fatal(err)
		}
	}
	open("false VMCOREINFO")
}

// pages is a little physical memory for page tables.
type pages []byte

func (p pages) ReadPhys(b []byte, addr uint64) error {
	if addr > uint64(len(p)) || uint64(len(b)) > uint64(len(p))-addr {
		return errors.New("no memory")
	}
	copy(b, p[addr:])
	return nil
}
func (p pages) Ranges() ([]Range, error)     { return []Range{{0, uint64(len(p))}}, nil }
func (p pages) Close() error                 { return nil }
func (p pages) set(table, index, v uint64)   { binary.LittleEndian.PutUint64(p[table+8*index:], v) }
func entry(phys uint64, flags uint64) uint64 { return phys | flags | ptePresent | 1<<63 }

func TestPageTable_Walk(t *testing.T) {
	p := make(pages, 16*pageSize)
	p.set(0x1000, 273, entry(0x2000, 0)) // 5 levels: 0x1000 → 0x2000 as in 4
	p.set(0x2000, 1, entry(0x3000, 0))
	p.set(0x3000, 2, entry(0x4000, 0))
	p.set(0x3000, 5, entry(0x40000000, pteLarge))
	p.set(0x4000, 3, entry(0x5000, 0))
	p.set(0x4000, 4, entry(0x12200000, pteLarge))
	p.set(0x5000, 7, entry(0xabc000, 0))
	p.set(0x5000, 8, 0xabc000) // not present
	four, five := pageTable{p, 0x2000, 4}, pageTable{p, 0x1000, 5}
	const a, b, c, d = 1 << 39, 2 << 30, 3 << 21, 7 << 12
	const top = 0xff11000000000000 // index 273 of the fifth level
	for _, x := range []struct {
		table     pageTable
		va        uint64
		phys, run uint64
	}{
		{four, a | b | c | d | 0x123, 0xabc123, 0xedd},
		{four, a | b | 4<<21 | 0x54321, 0x12254321, 0x1abcdf},
		{four, a | 5<<30 | 0x1234567, 0x41234567, 0x3edcba99},
		{five, top | a | b | c | d, 0xabc000, pageSize},
	} {
		phys, run, err := x.table.walk(x.va)
		if err != nil || phys != x.phys || run != x.run {
			t.Errorf("%#x: %#x, %#x, %v; want %#x, %#x", x.va, phys, run, err, x.phys, x.run)
		}
	}
	for _, va := range []uint64{a | b | c | 8<<12, a | 1<<47, 0, top} {
		if phys, _, err := four.walk(va); err == nil {
			t.Errorf("%#x leads to %#x", va, phys)
		}
	}
}
