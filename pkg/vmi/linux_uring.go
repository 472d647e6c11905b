package vmi

import (
	"context"
	"fmt"
)

// A process may register a file with an io_uring and close its descriptor: the
// ring holds the file then, and requests name it by its slot there.

// Bounds on rings.
const (
	maxRingFiles = 1 << 16 // slots of one ring
	maxRingNodes = 1 << 12 // of the tree of a task's rings
	fixedFlags   = 7       // low bits of a slot, which are not the file's address
)

// ringHolders looks for files among the registered files of all rings.
func (k *linuxKernel) ringHolders(ctx context.Context, want map[uint64]bool) (map[uint64][]holder, error) {
	out := make(map[uint64][]holder)
	if !k.knowsRings() || len(want) == 0 {
		return out, nil
	}
	k = k.oneLook()
	seen := make(map[uint64]bool) // task contexts: threads have their own
	for _, view := range []func(context.Context) ([]task, error){k.tasksAndAllThreads, k.treeView, k.slabView} {
		tasks, err := view(ctx)
		if err != nil {
			return nil, err
		}
		for _, t := range tasks {
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			tctx, err := k.member(t.addr, k.TaskRings)
			if err != nil || !k.isDirect(tctx) || seen[tctx] {
				continue
			}
			seen[tctx] = true
			leader, err := k.task(t.leader)
			if err != nil {
				continue // exiting
			}
			// Rings come and go: what is found is verified afterwards.
			_ = k.rings(tctx, func(ring uint64) error {
				return k.ringFiles(ring, func(slot uint32, file uint64) {
					if want[file] {
						out[file] = append(out[file], holder{task: t.addr, leader: t.leader, id: leader.id(), fd: slot, file: file, ring: ring})
					}
				})
			})
		}
	}
	return out, nil
}

func (k *linuxKernel) knowsRings() bool {
	return k.TaskRings.size != 0 && k.RingsHead.size != 0 && k.RingsNode.size != 0 &&
		(k.RingFiles.size != 0 && k.RingCount.size != 0 || k.RingNodes.size != 0 && k.RingNodeCount.size != 0 && k.RingNodeFile.size != 0)
}

// tasksAndAllThreads lists all listed processes and their threads.
func (k *linuxKernel) tasksAndAllThreads(ctx context.Context) ([]task, error) {
	leaders, err := k.tasksView(ctx)
	if err != nil {
		return nil, err
	}
	out := leaders
	for _, leader := range leaders {
		threads, err := k.threads(leader)
		if err != nil {
			continue // exiting
		}
		out = append(out, threads...)
	}
	return out, nil
}

// rings visits the rings that a task has used (io_uring_task.xa).
func (k *linuxKernel) rings(tctx uint64, fn func(ring uint64) error) error {
	head, err := k.member(tctx, k.RingsHead)
	if err != nil {
		return err
	}
	queue := []uint64{head}
	for seen := 0; len(queue) > 0; seen++ {
		entry := queue[0]
		queue = queue[1:]
		if seen > maxRingNodes {
			return fmt.Errorf("%w: endless tree of rings", ErrUnstable)
		}
		if addr, inner := xaNode(entry); inner {
			slots, err := k.xaSlots(addr)
			if err != nil {
				return err
			}
			for _, s := range slots {
				if s != 0 {
					queue = append(queue, s)
				}
			}
			continue
		}
		if !k.isDirect(entry) {
			continue
		}
		ring, err := k.member(entry, k.RingsNode)
		if err != nil {
			return err
		}
		if k.isDirect(ring) {
			if err := fn(ring); err != nil {
				return err
			}
		}
	}
	return nil
}

// ringFiles visits the registered files of a ring, by slot. From 6.13 on each
// has a record of its own.
func (k *linuxKernel) ringFiles(ring uint64, fn func(slot uint32, file uint64)) error {
	count, array := k.RingCount, k.RingFiles
	if array.size == 0 {
		count, array = k.RingNodeCount, k.RingNodes
	}
	n, err := k.u32(ring + uint64(count.off))
	if err != nil || n == 0 {
		return err
	}
	at, err := k.member(ring, array)
	if err != nil || at == 0 {
		return err
	}
	for slot := range min(n, maxRingFiles) {
		if file, err := k.ringFile(at + 8*uint64(slot)); err != nil {
			return err
		} else if file != 0 {
			fn(slot, file)
		}
	}
	return nil
}

// ringFile reads a slot of the array of registered files; 0 if it is empty.
func (k *linuxKernel) ringFile(at uint64) (uint64, error) {
	entry, err := k.u64(at)
	if err != nil || entry == 0 {
		return 0, err
	}
	if k.RingFiles.size == 0 {
		if entry, err = k.member(entry, k.RingNodeFile); err != nil {
			return 0, err
		}
	}
	return entry &^ fixedFlags, nil
}

// ringHolds says whether a slot of a ring still is the file.
func (k *linuxKernel) ringHolds(ring uint64, slot uint32, file uint64) bool {
	found := false
	err := k.ringFiles(ring, func(s uint32, f uint64) { found = found || s == slot && f == file })
	return err == nil && found
}

// addRings adds to what was found those holders that have registered a file;
// only for files with more references than descriptors.
func (k *linuxKernel) addRings(ctx context.Context, want map[uint64]uint64, found map[uint64][]holder) error {
	incomplete := make(map[uint64]bool)
	for file, count := range want {
		if uint64(len(found[file])) < count {
			incomplete[file] = true
		}
	}
	more, err := k.ringHolders(ctx, incomplete)
	for file, holders := range more {
		found[file] = append(found[file], holders...)
	}
	return err
}
