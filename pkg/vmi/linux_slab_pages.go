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
	// slabShare bounds the time that looking through all memory takes, to one part
	// in so many: with a lot of it that takes a while, and a guest that makes and
	// ends processes all the time would have it done for every list.
	slabShare = 50
	maxSlabs  = maxTasks
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
	found time.Time     // when all memory was looked through
	took  time.Duration // how long that was
}

// of gives the slabs of a cache: all of them, or, where all memory was looked
// through just now, those found then that still are and those of the tasks that
// this look has read.
func (p *slabPages) of(ctx context.Context, k *linuxKernel, cache uint64) ([]slab, error) {
	p.mu.Lock()
	known, found, took, same := p.known, p.found, p.took, p.cache == cache
	p.mu.Unlock()
	if same && time.Since(found) < slabsGoodFor {
		still := k.stillSlabs(cache, known)
		if count, ok := k.slabCount(cache); ok && count == uint64(len(known)) && len(still) == len(known) {
			return known, nil
		}
		if time.Since(found) < slabShare*took {
			return k.addSlabs(cache, still), nil
		}
	}
	begun := time.Now()
	known, err := k.findSlabs(ctx, cache)
	if err != nil {
		return nil, err
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cache, p.known, p.found, p.took = cache, known, begun, time.Since(begun)
	return known, nil
}

// addSlabs adds the slabs of tasks that are known.
func (k *linuxKernel) addSlabs(cache uint64, slabs []slab) []slab {
	seen := make(map[uint64]bool, len(slabs))
	for _, s := range slabs {
		seen[s.phys] = true
	}
	for i := range k.known.size() {
		addr := k.known.all[i].addr
		page, err := k.slabPage(addr)
		if err != nil || page < k.vmemmap || !k.isDirect(addr) {
			continue
		}
		phys := (page - k.vmemmap) / uint64(k.PageRecord.size) * pageSize
		if seen[phys] || len(slabs) >= maxSlabs {
			continue
		}
		seen[phys] = true
		if one := k.stillSlabs(cache, []slab{{phys: phys}}); len(one) > 0 {
			slabs = append(slabs, one[0])
		}
	}
	return slabs
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

// stillSlabs are those of known slabs that are of the cache now, as they are now.
func (k *linuxKernel) stillSlabs(cache uint64, known []slab) []slab {
	at := spanOf(k.SlabCache, k.SlabCount)
	out := make([]slab, 0, len(known)+8)
	for _, s := range known {
		r, err := k.scratch.record(k, k.vmemmap+s.phys/pageSize*uint64(k.PageRecord.size), at)
		if err != nil {
			continue
		}
		if r.uint(k.SlabCache) == cache {
			out = append(out, slab{s.phys, objectsOf(k, r)})
		}
		k.scratch.put(r)
	}
	return out
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
