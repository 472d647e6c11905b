package vmi

import (
	"encoding/binary"
	"errors"
	"fmt"
)

const (
	pageSize = 4096
	pageMask = pageSize - 1

	ptePresent = 1 << 0
	pteLarge   = 1 << 7
	// pteAddr masks the physical address of an entry (bits 12 to 51).
	pteAddr = 0x000ffffffffff000
)

// errNotPresent: no page is mapped at the virtual address.
var errNotPresent = errors.New("not mapped")

// pageTable is the root of an x86-64 page table.
type pageTable struct {
	mem    Memory
	root   uint64 // guest-physical
	levels int    // 4 or 5
}

// walk translates a virtual address. run is the number of bytes from there to
// the end of the (possibly large) page. Reference: Intel SDM volume 3, 4.5.
func (t pageTable) walk(va uint64) (phys, run uint64, err error) {
	if !t.canonical(va) {
		return 0, 0, fmt.Errorf("virtual address %#x is not canonical", va)
	}
	table := t.root & pteAddr
	for level := t.levels; level >= 1; level-- {
		shift := 12 + 9*(level-1)
		var raw [8]byte
		if err := t.mem.ReadPhys(raw[:], table+(va>>shift&0x1ff)*8); err != nil {
			return 0, 0, err
		}
		entry := binary.LittleEndian.Uint64(raw[:])
		if entry&ptePresent == 0 {
			return 0, 0, fmt.Errorf("virtual address %#x: %w", va, errNotPresent)
		}
		if level == 1 || level <= 3 && entry&pteLarge != 0 {
			size := uint64(1) << shift
			base := entry & pteAddr &^ (size - 1)
			return base + va&(size-1), size - va&(size-1), nil
		}
		table = entry & pteAddr
	}
	return 0, 0, fmt.Errorf("virtual address %#x: %w", va, errNotPresent)
}

// mapped calls fn with every mapped page of 4 KiB in [from, to), large pages in
// pieces. Tables that cannot be read map nothing.
func (t pageTable) mapped(from, to uint64, fn func(va, phys uint64) error) error {
	return t.mappedIn(t.root&pteAddr, t.levels, 0, from, to, fn)
}

// mappedIn is mapped for one table, whose first entry maps base.
func (t pageTable) mappedIn(table uint64, level int, base, from, to uint64, fn func(va, phys uint64) error) error {
	var raw [pageSize]byte
	if t.mem.ReadPhys(raw[:], table) != nil {
		return nil
	}
	shift := 12 + 9*(level-1)
	for i := range uint64(len(raw) / 8) {
		va := base + i<<shift
		if top := 12 + 9*t.levels; level == t.levels && i >= 256 {
			va |= ^uint64(0) << top // the upper half is canonical
		}
		entry := binary.LittleEndian.Uint64(raw[8*i:])
		if entry&ptePresent == 0 || va >= to || va+(1<<shift-1) < from {
			continue
		}
		var err error
		switch {
		case level == 1:
			err = fn(va, entry&pteAddr)
		case level <= 3 && entry&pteLarge != 0:
			start := entry & pteAddr &^ (1<<shift - 1)
			for off := uint64(0); off < 1<<shift && err == nil; off += pageSize {
				if va+off >= from && va+off < to {
					err = fn(va+off, start+off)
				}
			}
		default:
			err = t.mappedIn(entry&pteAddr, level-1, va, from, to, fn)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// canonical says whether all the bits above the translated ones equal its top bit.
func (t pageTable) canonical(va uint64) bool {
	unused := 64 - (12 + 9*t.levels)
	return uint64(int64(va<<unused)>>unused) == va
}
