package vmi

import (
	"context"
	"time"
)

// holder is one descriptor of a socket.
type holder struct {
	task   uint64 // the task whose table it is: a leader, or a thread with its own
	leader uint64
	id     id // of the leader
	files  uint64
	fd     uint32
	file   uint64
	ring   uint64 // struct io_ring_ctx, where fd is a slot of its registered files; 0: fd is a descriptor
}

// fewFiles is up to how many files are looked for in the likeliest places first.
const fewFiles = 16

// findHolders looks for who holds files; want gives each one's reference count.
// The likeliest tables of descriptors come first; where they do not account for
// every reference, those of all processes that the guest lists or that descend
// from these, and of their threads, follow, and where nobody was found the
// allocator's view, which no unlinking can hide from.
func (g *linuxGuest) findHolders(ctx context.Context, want map[uint64]uint64) (map[uint64][]holder, error) {
	asked := time.Now()
	s := search{g: g, want: want}
	if len(want) <= fewFiles {
		if found := s.likely(); found != nil {
			return found, nil
		}
	}
	if err := g.fds.pass(ctx, g.k, asked, false); err != nil {
		return nil, err
	}
	s.found = make(map[uint64][]holder)
	if all := g.fds.find(want, s.found); !all {
		if err := s.views(ctx, want, g.k.tasksAndThreads, g.k.treeAndThreads); err != nil {
			return nil, err
		}
	}
	if missing := s.missing(); len(missing) > 0 {
		if err := s.views(ctx, missing, g.k.slabView); err != nil {
			return nil, err
		}
	}
	if len(want) <= fewFiles {
		s.note()
	}
	return s.found, nil
}

// search is one search for the holders of files.
type search struct {
	g     *linuxGuest
	want  map[uint64]uint64 // file to its reference count
	found map[uint64][]holder
}

// views looks through the descriptors of the tasks in some views, without the
// help of what is remembered.
func (s *search) views(ctx context.Context, want map[uint64]uint64, views ...func(context.Context) ([]task, error)) error {
	seen := make(map[table]bool)
	for file := range want {
		delete(s.found, file)
	}
	for _, view := range views {
		tasks, err := view(ctx)
		if err != nil {
			return err
		}
		for _, t := range tasks {
			if err := ctx.Err(); err != nil {
				return err
			}
			s.task(t, want, seen)
		}
	}
	return nil
}

// task looks through one task's descriptors. That it fails is no error: tasks
// exit while they are looked at, and what is found is verified afterwards.
func (s *search) task(t task, want map[uint64]uint64, seen map[table]bool) {
	key := table{t.leader, t.files}
	if !s.g.k.isDirect(t.files) || seen[key] {
		return
	}
	leader := t
	if !t.leads() {
		var err error
		if leader, err = s.g.k.task(t.leader); err != nil {
			return
		}
	}
	seen[key] = true
	_ = s.g.k.scanFiles(t.files, want, func(file uint64, fd uint32) {
		s.found[file] = append(s.found[file], holder{task: t.addr, leader: t.leader, id: leader.id(), files: t.files, fd: fd, file: file})
	})
}

// complete says whether all references to the files are accounted for.
func (s *search) complete() bool {
	for file, count := range s.want {
		if uint64(len(s.found[file])) < max(count, 1) {
			return false
		}
	}
	return true
}

func (s *search) missing() map[uint64]uint64 {
	out := make(map[uint64]uint64)
	for file, count := range s.want {
		if len(s.found[file]) == 0 {
			out[file] = count
		}
	}
	return out
}

// tasksAndThreads adds the threads of listed processes that have a descriptor
// table of their own; the tables of the others have been seen.
func (k *linuxKernel) tasksAndThreads(ctx context.Context) ([]task, error) {
	leaders, err := k.tasksView(ctx)
	if err != nil {
		return nil, err
	}
	return k.withThreads(ctx, leaders)
}

func (k *linuxKernel) treeAndThreads(ctx context.Context) ([]task, error) {
	leaders, err := k.treeView(ctx)
	if err != nil {
		return nil, err
	}
	return k.withThreads(ctx, leaders)
}

func (k *linuxKernel) withThreads(ctx context.Context, leaders []task) ([]task, error) {
	out := leaders
	for _, leader := range leaders {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if k.alone(leader) {
			continue
		}
		threads, err := k.threads(leader)
		if err != nil {
			continue // exiting
		}
		for _, t := range threads {
			if t.addr != leader.addr && t.files != leader.files {
				out = append(out, t)
			}
		}
	}
	return out, nil
}

// verify says whether a descriptor still is what it was when it was found.
func (k *linuxKernel) verify(h holder, file uint64) bool {
	t, err := k.task(h.task)
	if err != nil || h.ring == 0 && t.files != h.files || t.leader != h.leader {
		return false
	}
	if t.addr != h.leader {
		if t, err = k.task(h.leader); err != nil {
			return false
		}
	}
	if t.id() != h.id || !k.living(t) {
		return false
	}
	if h.ring != 0 {
		return k.ringHolds(h.ring, h.fd, file)
	}
	return k.holds(h.files, h.fd, file)
}
