package vmi

import (
	"context"
	"encoding/binary"
	"fmt"
	"sync"
)

// A process that never runs does nothing: whatever lists it has been taken from,
// the scheduler has it on a run queue whenever it works. One look shows only who
// runs or waits to run at that moment.

// Bounds on the run queues.
const (
	maxCPUs     = 8192 // CONFIG_NR_CPUS with MAXSMP
	rtQueues    = 100  // MAX_RT_PRIO
	maxRunning  = 1 << 16
	maxFollowed = 1 << 10
)

// knowsQueues says whether this kernel tells where its run queues are.
func (k *linuxKernel) knowsQueues() bool {
	for _, name := range []string{"runqueues", "__per_cpu_offset", "nr_cpu_ids"} {
		if _, ok := k.sym[name]; !ok {
			return false
		}
	}
	return k.RunCurrent.size != 0 && k.RunIdle.size != 0 && k.RunFair.size != 0 && k.TaskFair.size != 0
}

// runningView is the leaders of the tasks that the run queues hold, and those of
// an earlier look that ps did not show and that still live. The queues change
// while they are read: what looks wrong there is left out.
func (k *linuxKernel) runningView(ctx context.Context) ([]task, error) {
	if !k.knowsQueues() {
		return nil, nil
	}
	cpus, err := k.u32(k.sym["nr_cpu_ids"])
	if err != nil {
		return nil, err
	}
	seen := make(map[uint64]bool)
	var out []task
	add := func(addr uint64) {
		t, err := k.task(addr)
		if err == nil && !t.leads() {
			t, err = k.task(t.leader)
		}
		if err == nil && !seen[t.addr] && k.living(t) && len(out) < maxRunning {
			seen[t.addr] = true
			out = append(out, t)
		}
	}
	for cpu := range min(cpus, maxCPUs) {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		offset, err := k.u64(k.sym["__per_cpu_offset"] + 8*uint64(cpu))
		if err != nil {
			return nil, err
		}
		if err := k.queued(k.sym["runqueues"]+offset, add); err != nil && ctx.Err() != nil {
			return nil, ctx.Err()
		}
	}
	for _, addr := range k.followed.all() {
		add(addr)
	}
	return out, nil
}

// queued visits the tasks of one CPU's run queue.
func (k *linuxKernel) queued(rq uint64, fn func(addr uint64)) error {
	idle, err := k.member(rq, k.RunIdle)
	if err != nil {
		return err
	}
	current, err := k.member(rq, k.RunCurrent)
	if err != nil {
		return err
	}
	if current != idle {
		fn(current)
	}
	each := func(node field) func(uint64) error {
		return func(at uint64) error {
			fn(at - uint64(node.off))
			return nil
		}
	}
	if err := k.list(rq+uint64(k.RunFair.off), maxRunning, each(k.TaskFair)); err != nil {
		return err
	}
	if k.RunExt.size != 0 && k.TaskExt.size != 0 {
		if err := k.list(rq+uint64(k.RunExt.off), maxRunning, each(k.TaskExt)); err != nil {
			return err
		}
	}
	if k.RunRT.size != 0 && k.TaskRT.size != 0 {
		if err := k.realTime(rq+uint64(k.RunRT.off), each(k.TaskRT)); err != nil {
			return err
		}
	}
	if k.RunDeadline.size == 0 || k.TaskDeadline.size == 0 {
		return nil
	}
	root, err := k.member(rq, k.RunDeadline)
	if err != nil {
		return err
	}
	return k.rbTree(root, maxRunning, each(k.TaskDeadline))
}

// realTime visits the tasks of the queues of real-time priorities.
func (k *linuxKernel) realTime(at uint64, fn func(node uint64) error) error {
	var heads [16 * rtQueues]byte
	if err := k.read(heads[:], at); err != nil {
		return err
	}
	for i := uint64(0); i < rtQueues; i++ {
		head := at + 16*i
		if binary.LittleEndian.Uint64(heads[16*i:]) == head {
			continue
		}
		if err := k.list(head, maxRunning, fn); err != nil {
			return err
		}
	}
	return nil
}

// rbTree visits the nodes of a red-black tree (include/linux/rbtree_types.h).
func (k *linuxKernel) rbTree(root uint64, limit int, fn func(node uint64) error) error {
	queue := []uint64{root}
	for seen := 0; len(queue) > 0; seen++ {
		node := queue[0]
		queue = queue[1:]
		if node == 0 {
			continue
		}
		if seen > limit {
			return fmt.Errorf("%w: endless tree at %#x", ErrUnstable, root)
		}
		var children [16]byte // rb_right and rb_left
		if err := k.read(children[:], node+8); err != nil {
			return err
		}
		queue = append(queue, binary.LittleEndian.Uint64(children[:]), binary.LittleEndian.Uint64(children[8:]))
		if err := fn(node); err != nil {
			return err
		}
	}
	return nil
}

// followed are tasks that only the run queues showed: they are looked at again
// when they sleep, until they end.
type followed struct {
	mu    sync.Mutex
	addrs map[uint64]bool
}

func (f *followed) all() []uint64 {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := make([]uint64, 0, len(f.addrs))
	for addr := range f.addrs {
		out = append(out, addr)
	}
	return out
}

// keep replaces those that are followed.
func (f *followed) keep(seen map[id]*sighting) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.addrs = make(map[uint64]bool)
	for _, s := range seen {
		if len(s.views) == 1 && s.views[0] == viewRunning && len(f.addrs) < maxFollowed {
			f.addrs[s.task.addr] = true
		}
	}
}
