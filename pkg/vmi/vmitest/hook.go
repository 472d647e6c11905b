package vmitest

import (
	"encoding/binary"
	"fmt"

	"github.com/vmgate/vmgate/pkg/vmi"
)

// HookCall has an entry of a Linux guest's table of system calls lead away from the
// kernel's text, into its data: never choose a call that the guest makes. table is the
// table's address, as the guest's /proc/kallsyms tells it to root; pid any process;
// path and machine are as for Hide. undo puts the entry back.
func HookCall(path, machine string, pid uint32, table uint64, number int) (undo func() error, err error) {
	var at, was uint64
	err = change(path, machine, pid, func(m ram, l vmi.Links) error {
		// The table lies in the kernel's image, as the head of the list of tasks does:
		// what lies between them in memory is what lies between their addresses.
		at = l.HeadPrev.Phys - 8 - l.HeadNode + table + 8*uint64(number)
		if was, err = m.read(at); err != nil {
			return err
		}
		return m.write(at, l.HeadNode)
	})
	if err != nil {
		return nil, fmt.Errorf("cannot hook system call %d: %w", number, err)
	}
	return func() error {
		return change(path, machine, pid, func(m ram, _ vmi.Links) error { return m.write(at, was) })
	}, nil
}

// read is the number at a guest-physical address.
func (m ram) read(phys uint64) (uint64, error) {
	offset, run, ok := m.layout.Offset(phys)
	if !ok || run < 8 {
		return 0, fmt.Errorf("no RAM at %#x", phys)
	}
	var raw [8]byte
	_, err := m.file.ReadAt(raw[:], int64(offset))
	return binary.LittleEndian.Uint64(raw[:]), err
}
