package vmi

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strings"
)

// Discovery without VMCOREINFO: kernels before 6.1 do not say there where their
// symbols are, some have none, and a guest can wipe it. The symbol table is
// found by its looks instead.

// digits are ten neighbours of the token table that every kernel has: the
// tokens of the characters 0 to 9 are these themselves.
var digits = []byte("0\x001\x002\x003\x004\x005\x006\x007\x008\x009\x00")

const (
	bannerHead   = "Linux version "
	searchChunk  = 1 << 20
	minSymbols   = 10_000
	maxHits      = 64
	imageAlign   = 2 << 20 // CONFIG_PHYSICAL_ALIGN is a multiple
	markerStride = 256     // names between two entries of kallsyms_markers
)

// traces are the places, in guest-physical memory, that a kernel shows by.
type traces struct {
	digits, banners []uint64
}

// findTraces reads all of the populated memory.
func findTraces(ctx context.Context, mem Memory) (traces, error) {
	ranges, err := mem.Ranges()
	if err != nil {
		return traces{}, err
	}
	var t traces
	buf := make([]byte, searchChunk+64) // what lies across two chunks is seen whole in the first
	for _, r := range ranges {
		for phys := r.Start; phys < r.End; phys += searchChunk {
			if err := ctx.Err(); err != nil {
				return t, err
			}
			b := buf[:min(uint64(len(buf)), r.End-phys)]
			if err := mem.ReadPhys(b, phys); err != nil {
				return t, err
			}
			t.digits = appendHits(t.digits, b, digits, phys)
			t.banners = appendHits(t.banners, b, []byte(bannerHead), phys)
		}
	}
	return t, nil
}

func appendHits(hits []uint64, b, pattern []byte, phys uint64) []uint64 {
	for at := 0; len(hits) < maxHits; at++ {
		i := bytes.Index(b[at:], pattern)
		if i < 0 || at+i >= searchChunk {
			break
		}
		at += i
		hits = append(hits, phys+uint64(at))
	}
	return hits
}

// searchLinux finds a kernel by its symbol table. Until the page tables agree
// with what was found all failures are ErrNotReady: it may be a kernel that has
// just been unpacked, or the remains of one.
func searchLinux(ctx context.Context, mem Memory) (*linuxKernel, error) {
	found, err := findTraces(ctx, mem)
	if err != nil {
		return nil, err
	}
	failed := fmt.Errorf("%w: no Linux kernel in its memory", ErrNotReady)
	for _, hit := range found.digits {
		tables, err := tablesNear(mem, hit)
		if err != nil {
			continue // digits like these are in other places too
		}
		for _, t := range tables {
			k, err := t.kernel(ctx, mem, found.banners)
			if err == nil {
				return k, nil
			}
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			failed = err
		}
	}
	return nil, failed
}

// foundTable is a symbol table of which only the physical place is known.
// Addresses in it are as if the image began at the physical address base.
type foundTable struct {
	kallsymsTable
	base uint64
}

// window is a piece of physical memory around the token table that holds the
// rest of the symbol table.
type window struct {
	phys  uint64
	bytes []byte
}

// tablesNear finds the parts of the symbol table around the digits of its
// token table. There are two orders of them: up to 6.3 the offsets come before
// the names, later after the token index.
func tablesNear(mem Memory, hit uint64) ([]foundTable, error) {
	start := uint64(0)
	if hit > maxSymbolNames {
		start = hit - maxSymbolNames
	}
	w := window{phys: start, bytes: make([]byte, hit-start+2*maxTokenTable)}
	if err := readAround(mem, w); err != nil {
		return nil, err
	}
	table, index, err := w.tokens(int(hit - start))
	if err != nil {
		return nil, err
	}
	num, names, err := w.names(table)
	if err != nil {
		return nil, err
	}
	base := w.phys &^ (imageAlign - 1)
	at := func(i int) uint64 { return imageBase + w.phys + uint64(i) - base }
	t := kallsymsTable{names: at(names), tokenTable: at(table), tokenIndex: at(index), num: uint32(num)}
	size := (4*num + 7) &^ 7
	before, after := t, t
	var out []foundTable
	if i := (names - 16) &^ 7; i-size >= 0 {
		before.offsets, before.relativeBase = at(i-size), binary.LittleEndian.Uint64(w.bytes[i:])
		out = append(out, foundTable{before, base})
	}
	after.offsets = at((index + 512 + 7) &^ 7)
	var raw [8]byte
	if err := mem.ReadPhys(raw[:], base+after.offsets-imageBase+uint64(size)); err == nil {
		after.relativeBase = binary.LittleEndian.Uint64(raw[:])
		out = append(out, foundTable{after, base})
	}
	return out, nil
}

// readAround fills a window; parts without memory stay zero.
func readAround(mem Memory, w window) error {
	ranges, err := mem.Ranges()
	if err != nil {
		return err
	}
	end := w.phys + uint64(len(w.bytes))
	for _, r := range ranges {
		from, to := max(r.Start, w.phys), min(r.End, end)
		if from < to {
			if err := mem.ReadPhys(w.bytes[from-w.phys:to-w.phys], from); err != nil {
				return err
			}
		}
	}
	return nil
}

// tokens finds the start of the token table, 48 strings before the digits, and
// the index behind it, which must name every string's place.
func (w window) tokens(hit int) (table, index int, err error) {
	table = hit
	for range '0' {
		i := bytes.LastIndexByte(w.bytes[max(0, table-1-maxSymbolLen):max(0, table-1)], 0)
		if i < 0 {
			return 0, 0, fmt.Errorf("%w: no token table", errKallsyms)
		}
		table = max(0, table-1-maxSymbolLen) + i + 1
	}
	var places [256]int
	at := table
	for i := range places {
		places[i] = at - table
		n := bytes.IndexByte(w.bytes[at:min(len(w.bytes), at+maxSymbolLen)], 0)
		if n < 0 {
			return 0, 0, fmt.Errorf("%w: token table cut off", errKallsyms)
		}
		at += n + 1
	}
	for index = (at + 3) &^ 3; index <= at+8 && index+512 <= len(w.bytes); index += 4 {
		if w.isIndex(index, places) {
			return table, index, nil
		}
	}
	return 0, 0, fmt.Errorf("%w: no token index", errKallsyms)
}

func (w window) isIndex(at int, places [256]int) bool {
	for i, place := range places {
		if int(binary.LittleEndian.Uint16(w.bytes[at+2*i:])) != place {
			return false
		}
	}
	return true
}

// names searches back from the token table for the number of symbols, right
// behind which the names must lead to the table of markers.
func (w window) names(table int) (num, names int, err error) {
	for at := table&^3 - 4; at >= 0; at -= 4 {
		num = int(binary.LittleEndian.Uint32(w.bytes[at:]))
		if num < minSymbols || num > maxSymbols {
			continue
		}
		for _, names := range []int{at + 4, at + 8} {
			if w.leadsToMarkers(names, num, table) {
				return num, names, nil
			}
		}
	}
	return 0, 0, fmt.Errorf("%w: no names", errKallsyms)
}

// leadsToMarkers walks the lengths of all names; behind the last there must be
// the places of every 256th.
func (w window) leadsToMarkers(names, num, limit int) bool {
	var marks [4]uint32
	at := names
	for i := range num {
		if i%markerStride == 0 && i/markerStride < len(marks) {
			marks[i/markerStride] = uint32(at - names)
		}
		if at+2 > limit {
			return false
		}
		n := int(w.bytes[at])
		at++
		if n >= 0x80 {
			n = n&0x7f | int(w.bytes[at])<<7
			at++
		}
		if n == 0 {
			return false
		}
		at += n
	}
	for at = (at + 3) &^ 3; at%8 == 0 || at%8 == 4; at += 4 {
		if at+4*len(marks) > limit {
			return false
		}
		if w.hasMarks(at, marks) {
			return true
		}
		if at%8 == 0 {
			return false
		}
	}
	return false
}

func (w window) hasMarks(at int, marks [4]uint32) bool {
	for i, m := range marks {
		if binary.LittleEndian.Uint32(w.bytes[at+4*i:]) != m {
			return false
		}
	}
	return true
}

// kernel tries every encoding of the addresses against every banner.
func (t foundTable) kernel(ctx context.Context, mem Memory, banners []uint64) (*linuxKernel, error) {
	limit, err := memoryLimit(mem)
	if err != nil {
		return nil, err
	}
	notReady := func(err error) error { return fmt.Errorf("%w: %w", ErrNotReady, err) }
	s := space{mem: mem, physBase: t.base, limit: limit, budget: &budget{ctx: ctx, left: maxReads}}
	index, err := symbolIndex(&s, t.kallsymsTable, symbolNames())
	if err != nil {
		return nil, notReady(err)
	}
	failed := notReady(errors.New("a symbol table without its kernel"))
	for _, decode := range symbolEncodings[:2] { // those relative to a base
		sym := make(symbols, len(index))
		for name, i := range index {
			at := t.offsets + 4*uint64(i)
			entry, err := s.u32(at)
			if err != nil {
				return nil, notReady(err)
			}
			sym[name] = decode(t.kallsymsTable, entry, at)
		}
		for _, banner := range banners {
			k := &linuxKernel{space: s, sym: sym}
			if !k.place(banner) {
				continue
			}
			if err := k.finish(); err != nil {
				failed = fmt.Errorf("%w: Linux %s: %w", ErrNotUnderstood, k.release, err)
				continue
			}
			return k, nil
		}
	}
	return nil, failed
}

// place sets the kernel's translation up on the assumption that its banner is
// at a physical address, and says whether its page tables confirm that.
func (k *linuxKernel) place(banner uint64) bool {
	va := k.sym["linux_banner"]
	root := k.sym["init_top_pgt"]
	k.physBase = banner - (va - imageBase)
	if !inImage(va) || !inImage(root) || k.physBase%imageAlign != 0 {
		return false
	}
	text, err := k.cstring(va, 512)
	if err != nil {
		return false
	}
	release, _, _ := strings.Cut(strings.TrimPrefix(text, bannerHead), " ")
	k.release = printable(release)
	for _, levels := range []int{4, 5} {
		k.tables = pageTable{mem: k.mem, root: k.imagePhys(root), levels: levels}
		if phys, _, err := k.tables.walk(va); err == nil && phys == banner {
			return true
		}
	}
	return false
}
