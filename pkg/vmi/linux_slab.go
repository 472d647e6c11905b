package vmi

import (
	"context"
	"encoding/binary"
	"errors"
)

// slabChunk is how many page records are read at once.
const slabChunk = 1024

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
	ranges, err := k.mem.Ranges()
	if err != nil {
		return nil, err
	}
	var out []task
	for _, r := range ranges {
		err := k.eachSlab(ctx, r, cache, func(phys uint64, objects uint32) error {
			for i := range objects {
				va := k.direct + phys + uint64(pad) + uint64(i)*uint64(size)
				t, err := k.task(va)
				if err == nil && k.living(t) && len(out) < maxTasks {
					out = append(out, t)
				}
			}
			return nil
		})
		if err != nil {
			return nil, err
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

// eachSlab calls fn with every slab of the cache in a physical range: its
// address and number of objects.
func (k *linuxKernel) eachSlab(ctx context.Context, r Range, cache uint64, fn func(phys uint64, objects uint32) error) error {
	size := uint64(k.PageRecord.size)
	if size < 32 || size > 256 {
		return errors.New("page records make no sense")
	}
	buf := make([]byte, slabChunk*size)
	for frame, end := r.Start/pageSize, r.End/pageSize; frame < end; {
		if err := ctx.Err(); err != nil {
			return err
		}
		n := min(end-frame, slabChunk-frame%slabChunk)
		records := buf[:n*size]
		if err := k.read(records, k.vmemmap+frame*size); err != nil {
			frame += n // no records for this part: firmware, or RAM that the kernel does not use
			continue
		}
		for i := range n {
			rec := record{b: records[i*size : (i+1)*size]}
			if rec.uint(k.SlabCache) != cache {
				continue
			}
			// A slab has at most a few dozen tasks; the bound is the field's width.
			objects := min(uint32(rec.uint(k.SlabCount)), 1<<10)
			if err := fn((frame+i)*pageSize, objects); err != nil {
				return err
			}
		}
		frame += n
	}
	return nil
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
	size := uint64(k.PageRecord.size)
	page := k.vmemmap + (addr-k.direct)/pageSize*size
	var head [16]byte
	if k.read(head[:], page) != nil {
		return false
	}
	if compound := binary.LittleEndian.Uint64(head[8:]); compound&1 == 1 {
		page = compound &^ 1
	}
	got, err := k.member(page, k.SlabCache)
	return err == nil && got == cache
}
