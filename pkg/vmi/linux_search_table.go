package vmi

import (
	"bytes"
	"encoding/binary"
	"fmt"
)

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
	// First a little of it: most places with such digits are no token table.
	w, err := windowAround(mem, hit, maxTokenTable)
	if err != nil {
		return nil, err
	}
	if _, _, err := w.tokens(int(hit - w.phys)); err != nil {
		return nil, err
	}
	if w, err = windowAround(mem, hit, maxSymbolNames); err != nil {
		return nil, err
	}
	table, index, err := w.tokens(int(hit - w.phys))
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
	// From 7.0 the parts are aligned to 4 bytes only.
	if unaligned := at(index + 512); unaligned != after.offsets {
		after.offsets, after.relativeBase = unaligned, 0
		out = append(out, foundTable{after, base})
	}
	return out, nil
}

// windowAround reads what is before a place, and the token table behind it.
func windowAround(mem Memory, hit, before uint64) (window, error) {
	start := uint64(0)
	if hit > before {
		start = (hit - before) &^ pageMask // the parts are aligned, as seen from the window too
	}
	w := window{phys: start, bytes: make([]byte, hit-start+2*maxTokenTable)}
	return w, readAround(mem, w)
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
