package vmi

import (
	"context"
	"fmt"
)

// Bounds on what a guest can make us walk.
const (
	maxTasks   = 1 << 18
	maxThreads = 1 << 18
)

// From include/linux/sched.h.
const (
	taskKernelThread = 0x00200000 // PF_KTHREAD
	exitDead         = 0x10       // EXIT_DEAD
)

// task is one task_struct, as it was in one read.
type task struct {
	addr      uint64
	pid, tgid uint32
	start     uint64
	usage     uint32
	flags     uint32
	exit      uint32
	comm      string
	number    uint32 // what its struct pid says of its pid; 0 where that cannot be read
	altered   bool   // it said another pid than its struct pid, which pid and tgid are from now
	// Kernel addresses.
	class, next, mm, parent, leader, threadPID, cred, files, signal uint64
	cgroups, nsproxy, nextThread                                    uint64
}

func (k *linuxKernel) task(addr uint64) (task, error) {
	if t := k.known.at(addr); t != nil {
		return *t, nil
	}
	if addr&7 != 0 || !k.isDirect(addr) && addr != k.sym["init_task"] {
		return task{}, fmt.Errorf("%w: task at %#x", errBadPointer, addr)
	}
	r, err := k.scratch.record(k, addr, k.taskSpan, k.taskAt...)
	if err != nil {
		return task{}, err
	}
	t := k.taskFrom(r)
	k.scratch.put(r)
	k.unmask(&t)
	k.known.add(t)
	return t, nil
}

// knownTasks are the tasks that were read in one look; nil remembers none. The
// map holds where they are in all: tasks are too large for one.
type knownTasks struct {
	index map[uint64]int
	all   []task
	home  *scratch
	spare []task // for the next view, if the last one's is not needed any more
}

// oneLook gives the kernel for one look at many tasks, by several ways: each is
// read once.
func (k *linuxKernel) oneLook() *linuxKernel {
	c := *k
	if c.known, _ = k.scratch.looks.Get().(*knownTasks); c.known == nil {
		c.known = &knownTasks{index: make(map[uint64]int, 512), all: make([]task, 0, 512)}
	}
	c.known.home = k.scratch
	return &c
}

// maxKept is up to how many tasks' memory is kept from look to look.
const maxKept = 1 << 13

// done ends a look, of which nobody has the kernel any more: the next one uses
// its memory again, and nothing of what it says.
func (t *knownTasks) done() {
	if max(cap(t.all), cap(t.spare)) > maxKept {
		return
	}
	clear(t.index)
	clear(t.all) // the names
	t.all = t.all[:0]
	t.home.looks.Put(t)
}

func (t *knownTasks) at(addr uint64) *task {
	if t == nil {
		return nil
	}
	if i, ok := t.index[addr]; ok {
		return &t.all[i]
	}
	return nil
}

func (t *knownTasks) add(one task) {
	if t != nil {
		t.index[one.addr] = len(t.all)
		t.all = append(t.all, one)
	}
}

// room is where a view puts its tasks; it is the view's own.
func (t *knownTasks) room() []task {
	if t == nil || t.spare == nil {
		return make([]task, 0, max(512, t.size()))
	}
	out := t.spare[:0]
	t.spare = nil
	return out
}

// size is about how many tasks there are.
func (t *knownTasks) size() int {
	if t == nil {
		return 0
	}
	return len(t.all)
}

// unmask reads the pid that the rest of the kernel knows a task by. Somebody who
// has changed it in the task itself, to look like a task that is not there, does
// not change that.
func (k *linuxKernel) unmask(t *task) {
	if !k.isDirect(t.threadPID) {
		return
	}
	var err error
	t.number, err = k.u32(t.threadPID + uint64(k.PIDNumbers.off) + uint64(k.UPIDNr.off))
	leader := t.leader == t.addr
	if err != nil || t.pid != 0 && t.number == t.pid && (!leader || t.tgid == t.pid) {
		return
	}
	// Kernel threads are left out: the idle tasks have no pid.
	if t.exit != 0 || !k.isDirect(t.mm) || !k.isDirect(t.files) {
		return
	}
	// While a task is copied from its parent it has the parent's struct pid.
	if first, err := k.firstTask(t.threadPID); err != nil || first != 0 && first != t.addr {
		return
	}
	t.altered = true
	if t.number != 0 {
		t.pid = t.number
	}
	if leader {
		t.tgid = t.pid
	}
}

func (k *linuxKernel) taskFrom(r record) task {
	return task{
		addr: r.addr, pid: uint32(r.uint(k.TaskPID)), tgid: uint32(r.uint(k.TaskTGID)),
		start: r.uint(k.TaskStart), usage: uint32(r.uint(k.TaskUsage)), flags: uint32(r.uint(k.TaskFlags)),
		exit: uint32(r.uint(k.TaskExit)), comm: printable(goString(r.bytes(k.TaskComm, 16))),
		class: r.uint(k.TaskClass), next: r.uint(k.TaskTasks), mm: r.uint(k.TaskMM), parent: r.uint(k.TaskParent),
		leader: r.uint(k.TaskLeader), threadPID: r.uint(k.TaskThreadPID), cred: r.uint(k.TaskCred),
		files: r.uint(k.TaskFiles), signal: r.uint(k.TaskSignal),
		nextThread: r.uint(k.TaskThreadNode), cgroups: r.optional(k.TaskCgroups), nsproxy: r.optional(k.TaskNSProxy),
	}
}

// id tells instances of processes apart, also where a pid is used again.
type id struct {
	pid   uint32
	start uint64
}

func (t task) id() id { return id{t.pid, t.start} }

// living says whether this is a whole, running (or zombie) task, and not one
// that is being made or taken down. While a task is copied from its parent it
// has the parent's struct pid, so that the number there is the parent's.
func (k *linuxKernel) living(t task) bool {
	if t.usage == 0 || t.usage > 1<<30 || t.exit&exitDead != 0 || !inImage(t.class) || !k.isDirect(t.threadPID) {
		return false
	}
	return t.altered || t.pid != 0 && t.number == t.pid
}

// leads says whether the task stands for a process, being the leader of its threads.
func (t task) leads() bool { return t.leader == t.addr }

// tasksView walks the list of all processes.
func (k *linuxKernel) tasksView(ctx context.Context) ([]task, error) {
	first := k.sym["init_task"]
	t, err := k.task(first)
	if err != nil {
		return nil, err
	}
	out := k.known.room()
	var circle loop
	for t.next-uint64(k.TaskTasks.off) != first {
		if len(out) >= maxTasks || circle.meets(t.next) {
			return nil, fmt.Errorf("%w: endless list of tasks", ErrUnstable)
		}
		if len(out)&0xff == 0 && ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if t, err = k.task(t.next - uint64(k.TaskTasks.off)); err != nil {
			return nil, fmt.Errorf("%w: list of tasks: %w", ErrUnstable, err)
		}
		out = append(out, t)
	}
	return out, nil
}

// alone says whether a process has but one thread.
func (k *linuxKernel) alone(leader task) bool {
	head := leader.signal + uint64(k.SignalThreads.off)
	if leader.nextThread != head || !k.isDirect(leader.signal) {
		return false
	}
	first, err := k.u64(head)
	return err == nil && first == leader.addr+uint64(k.TaskThreadNode.off)
}

// threads lists a process's tasks, its leader included.
func (k *linuxKernel) threads(leader task) ([]task, error) {
	var out []task
	if !k.isDirect(leader.signal) {
		return nil, nil // has just exited
	}
	head := leader.signal + uint64(k.SignalThreads.off)
	err := k.list(head, maxThreads, func(node uint64) error {
		t, err := k.task(node - uint64(k.TaskThreadNode.off))
		if err == nil {
			out = append(out, t)
		}
		return err
	})
	return out, err
}

// treeView finds processes as children of others. A child is kept with the
// thread that made it, so that all threads are visited.
func (k *linuxKernel) treeView(ctx context.Context) ([]task, error) {
	idle, err := k.task(k.sym["init_task"])
	if err != nil {
		return nil, err
	}
	seen := make(map[uint64]bool, max(256, k.known.size()))
	seen[idle.addr] = true
	out := append(k.known.room(), idle) // also the queue of those whose children are to be visited
	for at := 0; at < len(out); at++ {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		parent := out[at]
		err := k.children(parent, func(t task) {
			if !seen[t.addr] && len(seen) < maxTasks {
				seen[t.addr] = true
				out = append(out, t)
			}
		})
		if err != nil {
			return nil, fmt.Errorf("%w: tree of tasks: %w", ErrUnstable, err)
		}
	}
	return out[1:], nil
}

// children visits the children of all threads of a process.
func (k *linuxKernel) children(parent task, fn func(task)) error {
	of := func(addr uint64) error {
		return k.list(addr+uint64(k.TaskChildren.off), maxTasks, func(node uint64) error {
			t, err := k.task(node - uint64(k.TaskSibling.off))
			if err == nil {
				fn(t)
			}
			return err
		})
	}
	if err := of(parent.addr); err != nil || parent.pid == 0 || k.alone(parent) {
		return err
	}
	threads, err := k.threads(parent)
	for _, t := range threads {
		if err == nil && t.addr != parent.addr {
			err = of(t.addr)
		}
	}
	return err
}
