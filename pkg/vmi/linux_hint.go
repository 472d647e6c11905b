package vmi

import (
	"context"
	"errors"
	"fmt"
	"slices"
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
	tables := registers.pageTables(mem)
	running := func(k *linuxKernel) bool {
		return slices.ContainsFunc(tables, k.sharesKernelWith)
	}
	if k := inImages(ctx, mem, tables, help); k != nil && running(k) {
		return k, nil
	}
	k, err := findLinux(ctx, mem, help)
	if err == nil && !running(k) {
		return nil, fmt.Errorf("%w: Linux %s is in its memory, but the processor runs something else", ErrNotReady, k.release)
	}
	return k, err
}

// muchMemory is from where on looking at the first bytes of each page takes
// longer than searching a kernel's image; it always does where these cost a block.
const muchMemory = 4 << 30

// inImages looks for a kernel where tables map an image; nil if there is none, or
// if it is quicker to look for it elsewhere first.
func inImages(ctx context.Context, mem Memory, tables []pageTable, help linuxHelp) *linuxKernel {
	ranges, err := mem.Ranges()
	if err != nil {
		return nil
	}
	populated := uint64(0)
	for _, r := range ranges {
		populated += r.End - r.Start
	}
	if _, slow := mem.(BlockReader); !slow && populated < muchMemory {
		infos, err := findVMCoreInfo(ctx, mem)
		if err != nil || len(infos) > 0 {
			return nil
		}
	}
	for _, t := range tables {
		image, ok := t.image()
		if !ok {
			continue
		}
		if k, err := searchLinux(ctx, mem, []Range{image}, help); err == nil {
			return k
		}
	}
	return nil
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
