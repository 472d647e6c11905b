package vmi

import (
	"context"
	"encoding/binary"
	"errors"
	"sync"
	"time"
)

const (
	// slabChunk is how many page records are read at once.
	slabChunk = 1024
	// slabGap is how many pages without memory are read along between two ranges.
	slabGap = 64
	// slabsGoodFor is how long the slabs that are known count as all.
	slabsGoodFor = 10 * time.Second
	maxSlabs     = maxTasks
)

// slab is one slab of a cache: where its objects are and how many.
type slab struct {
	phys    uint64
	objects uint32
}

// slabPages remembers where the slabs of the cache of task structs are. To find
// them all takes the record of every page, 1/64 of the populated RAM. But the
// kernel counts them: as long as all that are known are still of the cache and
// their number is the kernel's, there is no other. The count is the guest's to
// forge, so that it is believed for some seconds only.
type slabPages struct {
	mu    sync.Mutex
	cache uint64
	known []slab
	found time.Time // when all memory was looked through
}

// of gives all slabs of a cache.
func (p *slabPages) of(ctx context.Context, k *linuxKernel, cache uint64) ([]slab, error) {
	p.mu.Lock()
	known := p.known
	good := p.cache == cache && time.Since(p.found) < slabsGoodFor
	p.mu.Unlock()
	if count, ok := k.slabCount(cache); good && ok && count == uint64(len(known)) && k.allSlabs(cache, known) {
		return known, nil
	}
	begun := time.Now()
	known, err := k.findSlabs(ctx, cache)
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cache, p.known, p.found = cache, known, begun
	return known, nil
}

// slabCount is how many slabs a cache has, as its kernel says; ok is false where
// it does not, or keeps a count for each of several nodes.
func (k *linuxKernel) slabCount(cache uint64) (n uint64, ok bool) {
	nodes, known := k.sym["nr_node_ids"]
	if !known || k.CacheNode.size == 0 || k.NodeSlabs.size == 0 {
		return 0, false
	}
	if count, err := k.u32(nodes); err != nil || count != 1 {
		return 0, false
	}
	node, err := k.member(cache, k.CacheNode)
	if err != nil || !k.isDirect(node) {
		return 0, false
	}
	n, err = k.member(node, k.NodeSlabs)
	return n, err == nil
}

// allSlabs says whether pages are still slabs of a cache, each as it was.
func (k *linuxKernel) allSlabs(cache uint64, known []slab) bool {
	at := spanOf(k.SlabCache, k.SlabCount)
	for _, s := range known {
		r, err := k.scratch.record(k, k.vmemmap+s.phys/pageSize*uint64(k.PageRecord.size), at)
		if err != nil {
			return false
		}
		same := r.uint(k.SlabCache) == cache && objectsOf(k, r) == s.objects
		k.scratch.put(r)
		if !same {
			return false
		}
	}
	return true
}

// objectsOf is how many objects a slab has: at most a few dozen tasks; the bound
// is the field's width.
func objectsOf(k *linuxKernel, r record) uint32 { return min(uint32(r.uint(k.SlabCount)), 1<<10) }

// findSlabs looks through the records of all populated pages.
func (k *linuxKernel) findSlabs(ctx context.Context, cache uint64) ([]slab, error) {
	size := uint64(k.PageRecord.size)
	if size < 32 || size > 256 || uint64(k.SlabCache.off)+8 > size {
		return nil, errors.New("page records make no sense")
	}
	ranges, err := k.mem.Ranges()
	if err != nil {
		return nil, err
	}
	var out []slab
	buf := make([]byte, slabChunk*size)
	for i := 0; i < len(ranges); i++ {
		frame, end := ranges[i].Start/pageSize, ranges[i].End/pageSize
		for i+1 < len(ranges) && ranges[i+1].Start/pageSize <= end+slabGap {
			i++
			end = ranges[i].End / pageSize
		}
		for frame < end {
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			n := min(end-frame, slabChunk-frame%slabChunk)
			records := buf[:n*size]
			if err := k.read(records, k.vmemmap+frame*size); err != nil {
				frame += n // no records for this part: firmware, or RAM that the kernel does not use
				continue
			}
			for i := range n {
				rec := records[i*size : (i+1)*size]
				if binary.LittleEndian.Uint64(rec[k.SlabCache.off:]) == cache && len(out) < maxSlabs {
					out = append(out, slab{(frame + i) * pageSize, objectsOf(k, record{b: rec})})
				}
			}
			frame += n
		}
	}
	return out, nil
}
