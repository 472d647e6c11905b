package vmi

import "slices"

// How many of the latest processes, and of the tasks that processors run, are
// looked at first.
const (
	newestTasks  = 8
	runningTasks = 8
)

// likely looks for the files where new ones are most likely: in the processes
// that run now and those where sockets were found last, in the newest processes,
// and then in what is remembered of all. It answers only if every reference was found, so that there
// can be no further holder; nil else.
func (s *search) likely() map[uint64][]holder {
	s.found = make(map[uint64][]holder)
	k, d := s.g.k, s.g.fds
	seen := make(map[table]bool)
	var buf []byte
	try := func(t task) bool {
		key := table{t.leader, t.files}
		if seen[key] {
			return false
		}
		seen[key] = true
		buf = d.refresh(k, t, buf)
		d.findIn(key, s.want, s.found)
		return s.complete()
	}
	done := false
	again := func(t task) bool {
		done = try(t)
		return !done
	}
	if k.current(runningTasks, again); done {
		s.note()
		return s.found
	}
	for _, key := range d.recently() {
		if t, err := k.task(key.leader); err == nil && t.files == key.files && try(t) {
			s.note()
			return s.found
		}
	}
	if k.newest(newestTasks, again); !done {
		s.found = make(map[uint64][]holder)
		d.find(s.want, s.found)
		for file, holders := range s.found {
			s.found[file] = slices.DeleteFunc(holders, func(h holder) bool { return !k.verify(h, file) })
		}
		done = s.complete()
	}
	if !done {
		return nil
	}
	s.note()
	return s.found
}

// note remembers where the files were found: the next new ones may be there too.
func (s *search) note() {
	for _, holders := range s.found {
		for _, h := range holders {
			s.g.fds.used(table{h.leader, h.files})
		}
	}
}

// newest calls fn with the latest processes that the guest lists, until it
// returns false.
func (k *linuxKernel) newest(n int, fn func(task) bool) {
	prev := uint64(k.TaskTasks.off) + 8
	for addr := k.sym["init_task"]; n > 0; n-- {
		node, err := k.u64(addr + prev)
		if err != nil {
			return
		}
		addr = node - uint64(k.TaskTasks.off)
		if addr == k.sym["init_task"] {
			return
		}
		if t, err := k.task(addr); err != nil || !fn(t) {
			return
		}
	}
}

// current calls fn with the tasks that the first n processors run, until it
// returns false.
func (k *linuxKernel) current(n uint32, fn func(task) bool) {
	if !k.knowsQueues() {
		return
	}
	cpus, err := k.u32(k.sym["nr_cpu_ids"])
	if err != nil {
		return
	}
	for cpu := range min(cpus, n) {
		offset, err := k.u64(k.sym["__per_cpu_offset"] + 8*uint64(cpu))
		if err != nil {
			return
		}
		addr, err := k.member(k.sym["runqueues"]+offset, k.RunCurrent)
		if err != nil {
			return
		}
		if t, err := k.task(addr); err == nil && t.pid != 0 && !fn(t) {
			return
		}
	}
}

// recently are the tables where sockets were found last.
func (d *descriptors) recently() []table {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.recent)
}

// used notes that a socket was found in a table.
func (d *descriptors) used(key table) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if i := slices.Index(d.recent, key); i >= 0 {
		d.recent = slices.Delete(d.recent, i, i+1)
	}
	d.recent = slices.Insert(d.recent, 0, key)
	d.recent = d.recent[:min(len(d.recent), maxRecent)]
}

// takeAlong names the sockets of the newest processes: a look-up is the first to
// know that something new is sending, and the next to send may be gone as soon.
func (g *linuxGuest) takeAlong() {
	var buf []byte
	g.k.newest(newestTasks, func(t task) bool {
		buf = g.fds.refresh(g.k, t, buf)
		g.name(table{t.leader, t.files}, maxNaming, false)
		return true
	})
}
