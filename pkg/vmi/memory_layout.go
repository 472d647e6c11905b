package vmi

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// fourGiB is where a PC's RAM goes on above the hole for its devices.
const fourGiB = 1 << 32

// Layout says how a machine spreads its RAM, which its monitor keeps in one
// piece, over guest-physical addresses.
type Layout struct {
	parts []part // ascending by phys, without overlaps
}

// maxPhys is the end of the physical addresses that x86-64 processors can have.
const maxPhys = 1 << 52

// part is one stretch of RAM: size bytes that begin at offset in the backing
// file are at phys in the guest.
type part struct {
	phys, offset, size uint64
}

// LayoutFor gives the layout of a QEMU machine type with size bytes of RAM.
// machine is "q35" (also when empty) or "pc", or a versioned name of these such
// as "pc-i440fx-7.2". Where RAM ends below 4 GiB is from QEMU's
// hw/i386/pc_q35.c and pc_piix.c: q35 moves all above 2 GiB away when there are
// 2.75 GiB or more, pc all above 3 GiB when there are 3.5 GiB or more.
func LayoutFor(machine string, size uint64) (Layout, error) {
	if size == 0 || size%pageSize != 0 || size > 1<<46 {
		return Layout{}, fmt.Errorf("cannot lay out %d bytes of RAM: not a positive multiple of %d", size, pageSize)
	}
	low := size
	switch {
	case machine == "" || strings.HasPrefix(machine, "q35") || strings.HasPrefix(machine, "pc-q35"):
		if size >= 0xb0000000 {
			low = 0x80000000
		}
	case machine == "pc" || strings.HasPrefix(machine, "pc-i440fx"):
		if size >= 0xe0000000 {
			low = 0xc0000000
		}
	default:
		return Layout{}, fmt.Errorf("cannot lay out the RAM of machine type %q: only q35 and pc are known", machine)
	}
	l := Layout{parts: []part{{size: low}}}
	if low < size {
		l.parts = append(l.parts, part{phys: fourGiB, offset: low, size: size - low})
	}
	return l, nil
}

// Part is one stretch of a guest's RAM: Size bytes at guest-physical address Phys
// are at Offset of the file, or at that address of the process, that backs it.
type Part struct{ Phys, Offset, Size uint64 }

// LayoutOf gives the layout of RAM that is spread as parts say, in any order and
// without overlaps.
func LayoutOf(parts ...Part) (Layout, error) {
	var own []part
	var end uint64
	parts = slices.SortedFunc(slices.Values(parts), func(a, b Part) int { return cmp.Compare(a.Phys, b.Phys) })
	for _, p := range parts {
		if p.Size == 0 || (p.Phys|p.Offset|p.Size)&pageMask != 0 || p.Offset >= maxPhys || p.Size > maxPhys-p.Offset {
			return Layout{}, fmt.Errorf("cannot lay out %#x bytes of RAM at %#x: not whole pages", p.Size, p.Phys)
		}
		if p.Phys < end {
			return Layout{}, fmt.Errorf("cannot lay out RAM at %#x: it is there twice", p.Phys)
		}
		own, end = append(own, part{phys: p.Phys, offset: p.Offset, size: p.Size}), p.Phys+p.Size
	}
	l, err := newLayout(own)
	if err != nil {
		return Layout{}, fmt.Errorf("cannot lay out RAM: %w", err)
	}
	return l, nil
}

// Parts lists the stretches of RAM, ascending by Phys.
func (l Layout) Parts() []Part {
	out := make([]Part, len(l.parts))
	for i, p := range l.parts {
		out[i] = Part{Phys: p.phys, Offset: p.offset, Size: p.size}
	}
	return out
}

// end is the end of what a file must have for the layout.
func (l Layout) end() (end uint64) {
	for _, p := range l.parts {
		end = max(end, p.offset+p.size)
	}
	return end
}

// Size is the amount of RAM in bytes.
func (l Layout) Size() uint64 {
	var n uint64
	for _, p := range l.parts {
		n += p.size
	}
	return n
}

// Offset gives the place of a guest-physical address in the backing file, and
// how many bytes follow there without a break; ok is false where there is no RAM.
func (l Layout) Offset(phys uint64) (off, run uint64, ok bool) {
	i, found := slices.BinarySearchFunc(l.parts, phys, func(p part, phys uint64) int { return cmp.Compare(p.phys, phys) })
	if !found {
		i-- // the one that begins before
	}
	if i < 0 || phys-l.parts[i].phys >= l.parts[i].size {
		return 0, 0, false
	}
	p, d := l.parts[i], phys-l.parts[i].phys
	return p.offset + d, p.size - d, true
}

// Ranges lists where there is RAM, used or not, ascending and joined.
func (l Layout) Ranges() []Range {
	var out []Range
	for _, p := range l.parts {
		if n := len(out); n > 0 && out[n-1].End == p.phys {
			out[n-1].End = p.phys + p.size
		} else {
			out = append(out, Range{p.phys, p.phys + p.size})
		}
	}
	return out
}
