package vmi

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"strconv"
	"strings"
)

// vmcoreinfo is the text that a Linux kernel keeps in a page of its own for
// crash tools (Documentation/admin-guide/kdump/vmcoreinfo.rst). The guest can
// write it, so that everything taken from it is checked against the page
// tables.
type vmcoreinfo struct {
	phys    uint64 // where it was found
	release string
	buildID string
	values  map[string]string
}

// maxVMCoreInfo is the size of the kernel's buffer for the text: one page.
const maxVMCoreInfo = pageSize

// parseVMCoreInfo reads the text form. ok is false where it is not one.
func parseVMCoreInfo(text []byte) (v vmcoreinfo, ok bool) {
	if len(text) > maxVMCoreInfo {
		text = text[:maxVMCoreInfo]
	}
	if end := bytes.IndexByte(text, 0); end >= 0 {
		text = text[:end]
	}
	if !bytes.HasPrefix(text, []byte("OSRELEASE=")) {
		return v, false
	}
	v.values = make(map[string]string)
	for line := range strings.Lines(string(text)) {
		key, value, found := strings.Cut(strings.TrimSuffix(line, "\n"), "=")
		if found {
			v.values[key] = value
		}
	}
	v.release, v.buildID = printable(v.values["OSRELEASE"]), printable(v.values["BUILD-ID"])
	return v, v.release != ""
}

// symbol gives the virtual address of SYMBOL(name).
func (v vmcoreinfo) symbol(name string) (uint64, bool) {
	n, err := strconv.ParseUint(v.values["SYMBOL("+name+")"], 16, 64)
	return n, err == nil
}

// number gives the decimal NUMBER(name); negative ones wrap, as phys_base needs.
func (v vmcoreinfo) number(name string) (uint64, bool) {
	n, err := strconv.ParseInt(v.values["NUMBER("+name+")"], 10, 64)
	return uint64(n), err == nil
}

// maxCandidates bounds how many texts a guest can make us look at.
const maxCandidates = 16

// findVMCoreInfo looks for the text at the start of every populated page, or
// behind the header of the ELF note that holds it.
func findVMCoreInfo(ctx context.Context, mem Memory) ([]vmcoreinfo, error) {
	var found []vmcoreinfo
	err := eachPage(ctx, mem, func(phys uint64, head []byte) bool {
		at := phys
		switch {
		case bytes.HasPrefix(head, []byte("OSRELEASE=")):
		case isVMCoreInfoNote(head):
			at += noteText
		default:
			return true
		}
		text := make([]byte, maxVMCoreInfo)
		if mem.ReadPhys(text, at) != nil {
			return true
		}
		if v, ok := parseVMCoreInfo(text); ok {
			v.phys = at
			found = append(found, v)
		}
		return len(found) < maxCandidates
	})
	return found, err
}

// noteText is where the text begins in the ELF note: a header of three words
// and the name, padded to 12 bytes.
const noteText = 24

func isVMCoreInfoNote(head []byte) bool {
	return len(head) >= noteText && binary.LittleEndian.Uint32(head) == 11 &&
		bytes.Equal(head[12:23], []byte("VMCOREINFO\x00"))
}

// pageHead is how much of each page eachPage shows.
const pageHead = 32

// eachPage calls fn with the first bytes of every populated page until it
// returns false. It reads no more than those: copying all of a big guest's RAM
// would take ten times as long.
func eachPage(ctx context.Context, mem Memory, fn func(phys uint64, head []byte) bool) error {
	ranges, err := mem.Ranges()
	if err != nil {
		return err
	}
	step, head := uint64(pageSize), uint64(pageHead)
	if b, ok := mem.(BlockReader); ok {
		step = max(uint64(b.BlockSize())&^pageMask, pageSize)
		head = step
	}
	buf := make([]byte, head)
	for _, r := range ranges {
		for at := (r.Start + pageMask) &^ pageMask; at+pageSize <= r.End; at += step {
			if at&(1<<24-1) == 0 && ctx.Err() != nil {
				return ctx.Err()
			}
			b := buf[:min(head, (r.End-at)&^pageMask)]
			if err := mem.ReadPhys(b, at); err != nil {
				return fmt.Errorf("cannot search guest memory: %w", err)
			}
			for i := uint64(0); i < uint64(len(b)); i += pageSize {
				if !fn(at+i, b[i:i+pageHead]) {
					return nil
				}
			}
		}
	}
	return nil
}
