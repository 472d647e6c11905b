package vmi

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
)

// Kernel image mapping of x86-64 Linux (Documentation/arch/x86/x86_64/mm.rst).
const (
	imageBase  = 0xffffffff80000000
	imageLimit = 0xffffffffc0000000 // modules follow
)

// space reads a Linux guest's kernel addresses. Addresses of the image and of
// the direct map of all RAM are computed; others go through the page tables.
type space struct {
	mem      Memory
	tables   pageTable
	physBase uint64 // physical minus virtual address of the image, less imageBase
	direct   uint64 // page_offset_base: where all RAM is mapped; 0 while unknown
	limit    uint64 // highest guest-physical address plus one
	budget   *budget
}

var errBadPointer = errors.New("pointer leads nowhere")

// imagePhys translates an address of the kernel image without page tables.
func (s *space) imagePhys(va uint64) uint64 { return va - imageBase + s.physBase }

func inImage(va uint64) bool { return va >= imageBase && va < imageLimit }

// isDirect says whether va is in the direct map.
func (s *space) isDirect(va uint64) bool { return s.direct != 0 && va-s.direct < s.limit }

// phys translates a kernel address; run is how many bytes follow there without
// a break in the mapping.
func (s *space) phys(va uint64) (phys, run uint64, err error) {
	switch {
	case s.isDirect(va):
		return va - s.direct, s.direct + s.limit - va, nil
	case inImage(va):
		return s.imagePhys(va), imageLimit - va, nil
	case va < 1<<63:
		return 0, 0, fmt.Errorf("kernel address %#x: %w", va, errBadPointer)
	}
	return s.tables.walk(va)
}

// read fills p from kernel address va.
func (s *space) read(p []byte, va uint64) error {
	if err := s.budget.spend(); err != nil {
		return err
	}
	for len(p) > 0 {
		phys, run, err := s.phys(va)
		if err != nil {
			return err
		}
		n := min(uint64(len(p)), run)
		if err := s.mem.ReadPhys(p[:n], phys); err != nil {
			return fmt.Errorf("kernel address %#x: %w", va, err)
		}
		p, va = p[n:], va+n
	}
	return nil
}

func (s *space) u64(va uint64) (uint64, error) { return s.word(va, 8) }

func (s *space) u32(va uint64) (uint32, error) {
	v, err := s.word(va, 4)
	return uint32(v), err
}

func (s *space) u8(va uint64) (uint8, error) {
	v, err := s.word(va, 1)
	return uint8(v), err
}

// word reads an integer of size bytes. One operation is one goroutine, so that
// they can share a buffer; outside of operations there is none.
func (s *space) word(va uint64, size int) (uint64, error) {
	if s.budget == nil {
		s = &space{mem: s.mem, tables: s.tables, physBase: s.physBase, direct: s.direct, limit: s.limit, budget: &budget{ctx: context.Background(), left: 1}}
	}
	raw := s.budget.word[:]
	clear(raw)
	err := s.read(raw[:size], va)
	return binary.LittleEndian.Uint64(raw), err
}

// cstring reads a zero-terminated string of at most limit bytes.
func (s *space) cstring(va uint64, limit int) (string, error) {
	buf := make([]byte, limit)
	n := min(uint64(limit), pageSize-va&pageMask) // the next page may not be mapped
	if err := s.read(buf[:n], va); err != nil {
		return "", err
	}
	if !hasZero(buf[:n]) && n < uint64(limit) {
		if err := s.read(buf[n:], va+n); err != nil {
			return "", err
		}
	}
	return goString(buf), nil
}

func hasZero(b []byte) bool {
	for _, c := range b {
		if c == 0 {
			return true
		}
	}
	return false
}

// goString is b up to its first zero byte.
func goString(b []byte) string {
	for i, c := range b {
		if c == 0 {
			return string(b[:i])
		}
	}
	return string(b)
}
