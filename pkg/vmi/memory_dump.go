package vmi

import (
	"bytes"
	"cmp"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
)

// Format is how a file holds a guest's memory.
type Format string

// The formats that OpenAs reads.
const (
	// FormatAuto is to be told from the file: see OpenAs.
	FormatAuto Format = ""
	// FormatRaw is RAM as a monitor keeps it, spread by LayoutFor: a shared
	// memory file, or a copy of one.
	FormatRaw Format = "raw"
	// FormatLiME is what the LiME kernel module and AVML (uncompressed) write
	// (github.com/504ensicsLabs/LiME, doc/README.md).
	FormatLiME Format = "lime"
	// FormatELF is an ELF core of physical memory: QEMU's dump-guest-memory
	// (docs/system and dump/dump.c there), or virsh dump --memory-only.
	FormatELF Format = "elf"
)

// OpenAs opens a file that holds a guest's memory in a format; machine is as for
// LayoutFor and needed for raw files only.
//
// FormatAuto is for files that a person names. The first bytes of a live guest's
// memory are the guest's to write, so that by themselves they tell nothing: it
// could pose as a dump of its own making. Its size is not: RAM is a multiple of
// a page, which a dump with its headers is not, and a file whose size and
// content disagree is refused. Programs know their formats and say so.
func OpenAs(path string, format Format, machine string) (Memory, error) {
	f, size, err := openMemoryFile(path)
	if err != nil {
		return nil, err
	}
	layout, err := layoutOf(f, size, format, machine)
	if err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("cannot use %s as guest memory: %w", path, err)
	}
	return &fileMemory{file: f, layout: layout, mapping: newMapping(f, size)}, nil
}

// layoutOf reads where a file of size bytes has which memory.
func layoutOf(r io.ReaderAt, size uint64, format Format, machine string) (Layout, error) {
	if format == FormatAuto {
		var err error
		if format, err = detect(r, size); err != nil {
			return Layout{}, err
		}
	}
	switch format {
	case FormatRaw:
		return LayoutFor(machine, size)
	case FormatLiME:
		return limeLayout(r, size)
	case FormatELF:
		return elfLayout(r, size)
	}
	return Layout{}, fmt.Errorf("there is no format %q: raw, lime and elf are known", format)
}

// dumpMagics are the first bytes of dumps; those without a format are known but
// not read.
var dumpMagics = []struct {
	magic  string
	format Format
	name   string
}{
	{elf.ELFMAG, FormatELF, "an ELF core"},
	{"EMiL", FormatLiME, "a LiME dump"},
	{"KDUMP   ", "", "a compressed kdump (make an ELF dump: dump-guest-memory without -z, -l and -s)"},
	{"AVML", "", "a compressed AVML dump (avml-convert makes a LiME dump of it)"},
}

func detect(r io.ReaderAt, size uint64) (Format, error) {
	head := make([]byte, 8)
	if n, err := r.ReadAt(head, 0); err != nil && (n == 0 || !errors.Is(err, io.EOF)) {
		return "", err
	}
	for _, m := range dumpMagics {
		switch {
		case !bytes.HasPrefix(head, []byte(m.magic)):
		case size%pageSize == 0:
			return "", fmt.Errorf("it begins as %s but has the size of RAM, which the guest may have written; name its format", m.name)
		case m.format == "":
			return "", fmt.Errorf("it is %s", m.name)
		default:
			return m.format, nil
		}
	}
	return FormatRaw, nil
}

// maxParts bounds the ranges of a dump; real machines have a few dozen.
const maxParts = 4096

// limeLayout reads the headers of a LiME file: magic, version, first and last
// address, 8 reserved bytes; the range's bytes follow each.
func limeLayout(r io.ReaderAt, size uint64) (Layout, error) {
	const headerSize = 32
	le := binary.LittleEndian
	var parts []part
	for at := uint64(0); at < size; {
		var head [headerSize]byte
		if size-at < headerSize {
			return Layout{}, fmt.Errorf("LiME: the header of range %d is cut off", len(parts))
		}
		if _, err := r.ReadAt(head[:], int64(at)); err != nil {
			return Layout{}, fmt.Errorf("LiME: %w", err)
		}
		first, last := le.Uint64(head[8:]), le.Uint64(head[16:])
		switch {
		case !bytes.HasPrefix(head[:], []byte("EMiL")) || le.Uint32(head[4:]) != 1:
			return Layout{}, fmt.Errorf("LiME: range %d has no header of version 1", len(parts))
		case last < first || last-first >= size-at-headerSize:
			return Layout{}, fmt.Errorf("LiME: range %d, %#x to %#x, is cut off", len(parts), first, last)
		case len(parts) == maxParts:
			return Layout{}, fmt.Errorf("LiME: more than %d ranges", maxParts)
		}
		parts = append(parts, part{phys: first, offset: at + headerSize, size: last - first + 1})
		at += headerSize + last - first + 1
	}
	return newLayout(parts)
}

// elfLayout reads the program headers of a core whose segments are physical
// memory. Only headers are read by the standard library here, which bounds
// what it allocates by the file's size.
func elfLayout(r io.ReaderAt, size uint64) (Layout, error) {
	f, err := elf.NewFile(io.NewSectionReader(r, 0, int64(size)))
	if err != nil {
		return Layout{}, fmt.Errorf("ELF: %w", err)
	}
	if f.Type != elf.ET_CORE || f.Machine != elf.EM_X86_64 {
		return Layout{}, fmt.Errorf("ELF: it is of type %v for %v, not a core of an x86-64 machine", f.Type, f.Machine)
	}
	var parts []part
	for i, p := range f.Progs {
		switch {
		case p.Type != elf.PT_LOAD || p.Filesz == 0:
			continue
		case p.Off > size || p.Filesz > size-p.Off:
			return Layout{}, fmt.Errorf("ELF: segment %d is cut off", i)
		case len(parts) == maxParts:
			return Layout{}, fmt.Errorf("ELF: more than %d segments", maxParts)
		}
		parts = append(parts, part{phys: p.Paddr, offset: p.Off, size: p.Filesz})
	}
	return newLayout(parts)
}

// newLayout sorts parts. Where a dump has memory twice, as one by virtual
// addresses does, the first in the file counts.
func newLayout(parts []part) (Layout, error) {
	if len(parts) == 0 {
		return Layout{}, errors.New("it holds no memory")
	}
	slices.SortStableFunc(parts, func(a, b part) int { return cmp.Compare(a.phys, b.phys) })
	var l Layout
	var end uint64 // of what the layout has so far
	for _, p := range parts {
		if p.phys >= maxPhys || p.size > maxPhys-p.phys {
			return Layout{}, fmt.Errorf("it claims memory at %#x, beyond what processors address", p.phys)
		}
		if p.phys < end {
			known := min(end-p.phys, p.size)
			p = part{phys: p.phys + known, offset: p.offset + known, size: p.size - known}
		}
		if p.size > 0 {
			l.parts = append(l.parts, p)
			end = p.phys + p.size
		}
	}
	return l, nil
}
