package vmi

import (
	"context"
	"encoding/binary"
	"fmt"
	"maps"
	"sync"
)

// linuxKernel is one running kernel: how to read its addresses, where its
// symbols are and what its structs look like. It is immutable, but for what its
// scratch and followed guard themselves.
type linuxKernel struct {
	space
	*linuxLayout
	sym      symbols
	release  string
	identity []identityWord
	taskSpan span
	taskAt   []span      // the parts of taskSpan that are of use
	known    *knownTasks // tasks that were read in this look; nil: read each time
	sockSpan span
	sockAt   []span // as taskAt
	scratch  *scratch
	followed *followed
	slabs    *slabPages
	vmemmap  uint64            // the array of page records, by page frame number
	help     linuxHelp         // during discovery
	vetted   string            // what of the operator's help was used and has to be vetted
	sizes    map[string]uint32 // of the structs of vetSizes and vetProtocols
}

func newLinuxKernel(s space, sym symbols, help linuxHelp) *linuxKernel {
	return &linuxKernel{space: s, sym: maps.Clone(sym), scratch: new(scratch), slabs: new(slabPages), followed: new(followed), help: help}
}

// bounded gives the kernel for one operation, which ctx and a budget bound.
func (k *linuxKernel) bounded(ctx context.Context) *linuxKernel {
	c := *k
	c.budget = &budget{ctx: ctx, left: maxReads}
	c.tables.mem = metered{c.mem, c.budget}
	return &c
}

func spanOf(fields ...field) span {
	s := span{lo: fields[0].off}
	for _, f := range fields {
		s.lo, s.hi = min(s.lo, f.off), max(s.hi, f.off+max(f.size, 8))
	}
	return s
}

// maxSpan bounds a read: hostile BTF may claim any offset.
const maxSpan = 64 << 10

// record is a struct in guest memory, or the part of it that was read.
type record struct {
	addr   uint64
	lo     uint32
	b      []byte
	pooled *[]byte // of scratch
}

// record reads a struct at addr.
func (k *linuxKernel) record(addr uint64, s span) (record, error) {
	if s.hi-s.lo > maxSpan {
		return record{}, fmt.Errorf("%w: a struct of %d bytes", errBTF, s.hi-s.lo)
	}
	r := record{addr: addr, lo: s.lo, b: make([]byte, s.hi-s.lo)}
	return r, k.read(r.b, addr+uint64(s.lo))
}

// scratch keeps the buffers of records that are read for a moment only: tasks are
// large, and most of the time of a look-up would go into collecting them.
type scratch struct {
	pool  sync.Pool // *[]byte
	looks sync.Pool // *knownTasks
}

// record is linuxKernel.record with a buffer that put takes back. With parts
// only these are read, which are offsets in the span, and the rest is garbage.
func (s *scratch) record(k *linuxKernel, addr uint64, at span, parts ...span) (record, error) {
	size := at.hi - at.lo
	if size > maxSpan {
		return record{}, fmt.Errorf("%w: a struct of %d bytes", errBTF, size)
	}
	buf, _ := s.pool.Get().(*[]byte)
	if buf == nil || uint32(cap(*buf)) < size {
		b := make([]byte, size)
		buf = &b
	}
	r := record{addr: addr, lo: at.lo, b: (*buf)[:size], pooled: buf}
	err := k.readParts(r.b, addr+uint64(at.lo), parts)
	if err != nil {
		s.put(r)
	}
	return r, err
}

func (s *scratch) put(r record) { s.pool.Put(r.pooled) }

// bytes gives n bytes of a member; nil where they were not read.
func (r record) bytes(f field, n uint32) []byte {
	if f.off < r.lo || uint64(f.off-r.lo)+uint64(n) > uint64(len(r.b)) {
		return nil
	}
	return r.b[f.off-r.lo : f.off-r.lo+n]
}

// uint gives an integer member of whatever width it has (8 bytes where the
// member is itself a struct, whose first word is meant).
func (r record) uint(f field) uint64 {
	size := min(max(f.size, 1), 8)
	if f.bits != 0 {
		size = 4
	}
	at := uint64(f.off) - uint64(r.lo)
	if f.off < r.lo || at+uint64(size) > uint64(len(r.b)) {
		return 0
	}
	b := r.b[at:]
	if size == 8 {
		return binary.LittleEndian.Uint64(b)
	}
	var wide [8]byte
	copy(wide[:], b[:size])
	if f.bits != 0 {
		return uint64(binary.LittleEndian.Uint32(wide[:])>>f.bit) & (1<<f.bits - 1)
	}
	return binary.LittleEndian.Uint64(wide[:])
}

// optional is uint for a member that not every kernel has; 0 then.
func (r record) optional(f field) uint64 {
	if f.size == 0 {
		return 0
	}
	return r.uint(f)
}

// member reads one pointer-sized member.
func (k *linuxKernel) member(addr uint64, f field) (uint64, error) {
	return k.u64(addr + uint64(f.off))
}

// hlist calls fn with each node of a chain whose first node is given, until it
// returns false. It ends at nil and at the odd "nulls" of some chains.
func (k *linuxKernel) hlist(first uint64, limit int, fn func(node uint64) (bool, error)) error {
	var circle loop
	for node := first; node != 0 && node&1 == 0; {
		if limit--; limit < 0 || circle.meets(node) {
			return fmt.Errorf("%w: endless chain at %#x", ErrUnstable, first)
		}
		next, err := k.u64(node)
		if err != nil {
			return err
		}
		if goOn, err := fn(node); err != nil || !goOn {
			return err
		}
		node = next
	}
	return nil
}

// list calls fn with each node of a circular list but its head.
func (k *linuxKernel) list(head uint64, limit int, fn func(node uint64) error) error {
	node, err := k.u64(head)
	if err != nil {
		return err
	}
	var circle loop
	for node != head {
		if limit--; limit < 0 || circle.meets(node) {
			return fmt.Errorf("%w: endless list at %#x", ErrUnstable, head)
		}
		if err := fn(node); err != nil {
			return err
		}
		if node, err = k.u64(node); err != nil {
			return err
		}
	}
	return nil
}
