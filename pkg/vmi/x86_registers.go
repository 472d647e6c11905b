package vmi

import (
	"fmt"
	"regexp"
	"strconv"
)

// Registers are those control registers of an x86-64 processor that say how it
// translates addresses.
type Registers struct {
	CR3, CR4 uint64
}

// cr4LA57 says that page tables have five levels (Intel SDM volume 3, 2.5).
const cr4LA57 = 1 << 12

var registerValue = regexp.MustCompile(`\b(CR3|CR4)=([0-9a-fA-F]{1,16})\b`)

// ParseRegisters reads what QEMU's monitor answers to "info registers", for the
// first processor in it.
func ParseRegisters(text string) (Registers, error) {
	found := make(map[string]uint64)
	for _, m := range registerValue.FindAllStringSubmatch(text, 2) {
		n, err := strconv.ParseUint(m[2], 16, 64)
		if err != nil {
			return Registers{}, fmt.Errorf("cannot read %s: %w", m[0], err)
		}
		found[m[1]] = n
	}
	if len(found) != 2 {
		return Registers{}, fmt.Errorf("cannot read the registers: no CR3 and CR4 in %d bytes", len(text))
	}
	return Registers{CR3: found["CR3"], CR4: found["CR4"]}, nil
}

// pageTables are the tables that the registers lead to. With page-table
// isolation a process has two, of which the kernel's, which maps all, is the
// first of the pair (Documentation/arch/x86/pti.rst): it is tried first.
func (r Registers) pageTables(mem Memory) []pageTable {
	levels := 4
	if r.CR4&cr4LA57 != 0 {
		levels = 5
	}
	root := r.CR3 & pteAddr
	tables := []pageTable{{mem: mem, root: root, levels: levels}}
	if kernel := root &^ pageSize; kernel != root {
		tables = append([]pageTable{{mem: mem, root: kernel, levels: levels}}, tables...)
	}
	return tables
}
