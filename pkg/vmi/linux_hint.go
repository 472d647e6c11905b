package vmi

import (
	"context"
	"errors"
	"fmt"
)

// A processor's registers lead to the kernel that runs: its image is looked for
// where they map one, and nothing else is taken for it, such as what a former
// kernel has left or a process has made up.

// openLinux finds the kernel that runs in mem.
func openLinux(ctx context.Context, mem Memory, help linuxHelp) (*linuxKernel, error) {
	if help.registers == nil {
		return findLinux(ctx, mem, help)
	}
	registers, err := help.registers(ctx)
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if err != nil {
		return findLinux(ctx, mem, help)
	}
	for _, tables := range registers.pageTables(mem) {
		image, ok := tables.image()
		if !ok {
			continue
		}
		if k, err := searchLinux(ctx, mem, []Range{image}, help); err == nil && k.sharesKernelWith(tables) {
			return k, nil
		}
	}
	k, err := findLinux(ctx, mem, help)
	if err != nil {
		return nil, err
	}
	for _, tables := range registers.pageTables(mem) {
		if k.sharesKernelWith(tables) {
			return k, nil
		}
	}
	return nil, fmt.Errorf("%w: Linux %s is in its memory, but the processor runs something else", ErrNotReady, k.release)
}

// image is where the tables map a kernel's image, which lies in one piece.
func (t pageTable) image() (Range, bool) {
	var r Range
	enough := errors.New("enough")
	err := t.mapped(imageBase, imageLimit, func(_, phys uint64) error {
		if r.End == 0 {
			r = Range{phys, phys}
		}
		if phys < r.Start || phys-r.Start >= maxImage {
			return enough // not of the image
		}
		r.End = max(r.End, phys+pageSize)
		return nil
	})
	return r, err == nil && r.End-r.Start > imageAlign
}

// sharesKernelWith says whether other tables map the kernel's half by the same
// tables as this kernel's own: those of every process do.
func (k *linuxKernel) sharesKernelWith(t pageTable) bool {
	var ours, theirs [8]byte
	err := errors.Join(k.mem.ReadPhys(ours[:], k.tables.root+511*8), k.mem.ReadPhys(theirs[:], t.root+511*8))
	return err == nil && t.levels == k.tables.levels && ours == theirs && ours[0]&ptePresent != 0
}
