package vmi

import (
	"context"
	"errors"
)

// slabView finds task structs where the kernel allocates them: every page
// that belongs to the cache of task structs. It reads the kernel's record of
// each page, 1/64 of the populated RAM, and depends on no list.
// Threads are among the result.
func (k *linuxKernel) slabView(ctx context.Context) ([]task, error) {
	symbol, ok := k.sym["task_struct_cachep"]
	if !ok {
		return nil, nil
	}
	cache, err := k.u64(symbol)
	if err != nil {
		return nil, err
	}
	size, err := k.u32(cache + uint64(k.CacheSize.off))
	if err != nil {
		return nil, err
	}
	pad, err := k.cachePad(cache)
	if err != nil {
		return nil, err
	}
	if size < k.taskSpan.hi || size > maxSpan || pad > pageSize {
		return nil, errors.New("the cache of task structs makes no sense")
	}
	slabs, err := k.slabs.of(ctx, k, cache)
	if err != nil {
		return nil, err
	}
	out := k.known.room()
	for _, s := range slabs {
		for i := range s.objects {
			t, err := k.task(k.direct + s.phys + uint64(pad) + uint64(i)*uint64(size))
			if err == nil && len(out) < maxTasks && k.living(t) {
				out = append(out, t)
			}
		}
	}
	return out, nil
}

// cachePad is the red zone in front of each object, where the kernel debugs slabs.
func (k *linuxKernel) cachePad(cache uint64) (uint32, error) {
	if k.CachePad.size == 0 {
		return 0, nil
	}
	return k.u32(cache + uint64(k.CachePad.off))
}

// inSlab says whether a task lies in a slab of the cache of task structs: the
// slab view of one task. A large slab keeps its cache in its first page only,
// to which the others point by an odd address.
func (k *linuxKernel) inSlab(addr uint64) bool {
	symbol, ok := k.sym["task_struct_cachep"]
	if !ok || !k.isDirect(addr) {
		return false
	}
	cache, err := k.u64(symbol)
	if err != nil {
		return false
	}
	page, err := k.slabPage(addr)
	if err != nil {
		return false
	}
	got, err := k.member(page, k.SlabCache)
	return err == nil && got == cache
}

// maskFloor is what no address of a page record reaches.
const maskFloor = ^uint64(1<<24 - 1)

// slabPage is the record of the first page of the slab that an address is in.
// From 7.0 on the others do not point to it: they keep the mask by which its
// record's address follows from theirs (compound_info, include/linux/page-flags.h).
func (k *linuxKernel) slabPage(addr uint64) (uint64, error) {
	page := k.vmemmap + (addr-k.direct)/pageSize*uint64(k.PageRecord.size)
	compound, err := k.u64(page + 8)
	switch {
	case err != nil || compound&1 == 0:
		return page, err
	case compound >= maskFloor:
		return page & compound, nil
	}
	return compound &^ 1, nil
}
