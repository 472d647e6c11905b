package vmi

import (
	"bytes"
	"errors"
	"fmt"
)

// identityWord is a place in guest memory that holds its value as long as the
// kernel that was discovered runs, and no longer.
type identityWord struct {
	phys  uint64
	value []byte
}

// check says ErrChanged when the kernel is no longer the one discovered.
func (k *linuxKernel) check() error {
	var buf [64]byte
	for _, w := range k.identity {
		got := buf[:len(w.value)]
		if err := k.mem.ReadPhys(got, w.phys); err != nil {
			return fmt.Errorf("%w: %w", ErrChanged, err)
		}
		if !bytes.Equal(got, w.value) {
			return fmt.Errorf("%w: what identified Linux %s at %#x is gone", ErrChanged, k.release, w.phys)
		}
	}
	return nil
}

// identify remembers what to compare later. After a reboot the old kernel's
// memory may stay as it was, so that its own words prove nothing; but every
// kernel writes its top page-table entry into the real-mode trampoline below
// 1 MiB, where the next one overwrites it. No process gets memory there either:
// one that builds a false kernel in its own pages, to be found first, would
// need the entry that leads to the true kernel's image.
func (k *linuxKernel) identify() error {
	places := map[uint64]uint32{k.imagePhys(k.sym["linux_banner"]): 64}
	if va, ok := k.sym["page_offset_base"]; ok {
		places[k.imagePhys(va)] = 8
	}
	top := k.tables.root + 511*8
	places[top] = 8
	trampoline, err := k.trampolineEntry()
	if err != nil {
		return err
	}
	places[trampoline] = 8
	for phys, size := range places {
		value := make([]byte, size)
		if err := k.mem.ReadPhys(value, phys); err != nil {
			return err
		}
		k.identity = append(k.identity, identityWord{phys, value})
	}
	return k.matchTrampoline(top, trampoline)
}

// trampolineEntry is the physical address of the last entry of the trampoline's
// page table.
func (k *linuxKernel) trampolineEntry() (uint64, error) {
	header, err := k.u64(k.sym["real_mode_header"])
	if err != nil {
		return 0, err
	}
	if header == 0 {
		return 0, ErrNotReady
	}
	table, err := k.u32(header + uint64(k.TrampolineAt.off))
	if err != nil {
		return 0, err
	}
	if table == 0 || table >= 1<<20 || table&pageMask != 0 {
		return 0, fmt.Errorf("its real-mode trampoline is at %#x", table)
	}
	return uint64(table) + 511*8, nil
}

// runs says whether the page tables map an address of the image as they should,
// and whether they are those that the machine was started with, as far as that
// can be told without symbols: some page below 1 MiB must have their last entry.
func (k *linuxKernel) runs(text uint64) bool {
	if phys, _, err := k.tables.walk(text); err != nil || phys != k.imagePhys(text) {
		return false
	}
	var top, entry [8]byte
	if k.mem.ReadPhys(top[:], k.tables.root+511*8) != nil {
		return false
	}
	for page := uint64(0); page < 1<<20; page += pageSize {
		if k.mem.ReadPhys(entry[:], page+511*8) == nil && entry == top {
			return true
		}
	}
	return false
}

// matchTrampoline refuses a kernel of before the last reboot.
func (k *linuxKernel) matchTrampoline(top, trampoline uint64) error {
	var a, b [8]byte
	if err := errors.Join(k.mem.ReadPhys(a[:], top), k.mem.ReadPhys(b[:], trampoline)); err != nil {
		return err
	}
	if a != b {
		return fmt.Errorf("%w: it is a kernel of before the last reboot, or still starting", ErrNotReady)
	}
	return nil
}
