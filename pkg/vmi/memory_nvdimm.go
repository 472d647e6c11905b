package vmi

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"slices"

	"golang.org/x/sys/unix"
)

// NVDIMM names persistent memory of this machine that is the RAM of another guest
// (QEMU's nvdimm over that guest's memory file, read-only and unarmed).
type NVDIMM struct {
	Size    uint64 // of the RAM, in bytes
	Address uint64 // physical, in this machine; if 0, the only range of the size is taken
	Machine string // of the guest, as for LayoutFor
}

const (
	nfitTable    = "/sys/firmware/acpi/tables/NFIT"
	physicalFile = "/dev/mem"
)

// OpenNVDIMM opens a guest's memory that this machine has as an NVDIMM, by its
// physical address. It takes root, and a kernel that is not locked down.
//
// The kernel's driver for such memory, nd_pmem, must not have bound it: it would
// make a disk of it, and the gateway look for file systems in what a guest has
// written. OpenNVDIMM does not read that disk either, whose contents are cached.
func OpenNVDIMM(dev NVDIMM) (Memory, error) {
	m, err := openNVDIMM(nfitTable, physicalFile, dev)
	if err != nil {
		return nil, fmt.Errorf("cannot use an NVDIMM as guest memory: %w", err)
	}
	return m, nil
}

func openNVDIMM(table, physical string, dev NVDIMM) (Memory, error) {
	layout, err := LayoutFor(dev.Machine, dev.Size)
	if err != nil {
		return nil, err
	}
	acpi, err := os.ReadFile(table)
	if errors.Is(err, os.ErrNotExist) {
		return nil, errors.New("this machine has none")
	} else if err != nil {
		return nil, err
	}
	at, err := chooseNVDIMM(parseNFIT(acpi), dev)
	if err != nil {
		return nil, err
	}
	f, err := os.Open(physical)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	m, err := mapDevice(f, int64(at), dev.Size, layout)
	if errors.Is(err, unix.EPERM) {
		return nil, fmt.Errorf("the kernel does not let %s be read at %#x: keep the driver nd_pmem from binding it (modprobe.blacklist=nd_pmem), and see whether the kernel is locked down: %w", physical, at, err)
	}
	return m, err
}

// parseNFIT returns the ranges of persistent memory in an ACPI NVDIMM Firmware
// Interface Table: structures of type 0, System Physical Address Range, with the
// GUID of persistent memory (ACPI 6.5, 5.2.25.2).
func parseNFIT(table []byte) []Range {
	const header, spaLength = 40, 56
	persistent := []byte{0x79, 0xd3, 0xf0, 0x66, 0xf3, 0xb4, 0x74, 0x40, 0xac, 0x43, 0x0d, 0x33, 0x18, 0xb7, 0x8c, 0xdb}
	le := binary.LittleEndian
	var out []Range
	for at := header; len(table)-at >= 4; {
		kind, length := le.Uint16(table[at:]), int(le.Uint16(table[at+2:]))
		if length < 4 || length > len(table)-at {
			break
		}
		if s := table[at : at+length]; kind == 0 && length >= spaLength && bytes.Equal(s[16:32], persistent) {
			start, size := le.Uint64(s[32:]), le.Uint64(s[40:])
			if start < maxPhys && size > 0 && size <= maxPhys-start {
				out = append(out, Range{start, start + size})
			}
		}
		at += length
	}
	return out
}

func chooseNVDIMM(all []Range, dev NVDIMM) (uint64, error) {
	fits := slices.DeleteFunc(slices.Clone(all), func(r Range) bool {
		return r.End-r.Start != dev.Size || dev.Address != 0 && r.Start != dev.Address
	})
	switch {
	case len(fits) == 1:
		return fits[0].Start, nil
	case len(fits) > 1:
		return 0, fmt.Errorf("%d of this machine's NVDIMMs have %d bytes: name one of them by its physical address", len(fits), dev.Size)
	case dev.Address != 0:
		return 0, fmt.Errorf("no NVDIMM of %d bytes at %#x; there are %s", dev.Size, dev.Address, namesOf(all))
	}
	return 0, fmt.Errorf("no NVDIMM of %d bytes; there are %s", dev.Size, namesOf(all))
}

func namesOf(all []Range) string {
	if len(all) == 0 {
		return "none"
	}
	var b bytes.Buffer
	for i, r := range all {
		if i > 0 {
			b.WriteString(", ")
		}
		fmt.Fprintf(&b, "%d bytes at %#x", r.End-r.Start, r.Start)
	}
	return b.String()
}
