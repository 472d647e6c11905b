package vmi

import (
	"context"
	"encoding/binary"
	"fmt"
)

// maxFDs bounds the descriptors of one process that are looked through.
const maxFDs = 1 << 20

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

// fdTable gives the array of open files of a task.
func (k *linuxKernel) fdTable(files uint64) (fd uint64, n uint32, err error) {
	table, err := k.member(files, k.FilesTable)
	if err != nil {
		return 0, 0, err
	}
	r, err := k.record(table, spanOf(k.TableMax, k.TableFD))
	if err != nil {
		return 0, 0, err
	}
	n = uint32(r.uint(k.TableMax))
	if n > maxFDs {
		return 0, 0, fmt.Errorf("%w: %d descriptors", ErrUnstable, n)
	}
	return r.uint(k.TableFD), n, nil
}

// holds says whether descriptor number fd of the table is still the file.
func (k *linuxKernel) holds(files uint64, fd uint32, file uint64) bool {
	array, n, err := k.fdTable(files)
	if err != nil || fd >= n {
		return false
	}
	got, err := k.u64(array + 8*uint64(fd))
	return err == nil && got == file
}

// scanFiles looks through one table of descriptors for files and calls found with each.
func (k *linuxKernel) scanFiles(files uint64, want map[uint64]bool, found func(file uint64, fd uint32)) error {
	array, n, err := k.fdTable(files)
	if err != nil || n == 0 {
		return err
	}
	var buf [pageSize]byte
	for first := uint32(0); first < n; first += pageSize / 8 {
		chunk := buf[:8*min(n-first, pageSize/8)]
		if err := k.read(chunk, array+8*uint64(first)); err != nil {
			return err
		}
		for i := 0; i < len(chunk); i += 8 {
			if file := binary.LittleEndian.Uint64(chunk[i:]); file != 0 && want[file] {
				found(file, first+uint32(i/8))
			}
		}
	}
	return nil
}

// search finds the holders of files, view after view.
type search struct {
	k     *linuxKernel
	want  map[uint64]uint64 // file to its reference count
	found map[uint64][]holder
	seen  map[table]bool
}

// table is a process's descriptor table: its threads share one, as a rule.
type table struct{ leader, files uint64 }

// findHolders looks for who holds files; want gives each one's reference
// count. Processes that the guest lists come first; where they do not account
// for every reference their threads and the tree of processes follow, and where
// nobody was found the allocator's view, which no unlinking can hide from.
func (k *linuxKernel) findHolders(ctx context.Context, want map[uint64]uint64) (map[uint64][]holder, error) {
	s := &search{k: k, want: want, found: make(map[uint64][]holder), seen: make(map[table]bool)}
	views := []struct {
		tasks func(context.Context) ([]task, error)
		need  func() map[uint64]bool
	}{
		{k.tasksView, s.all},
		{k.tasksAndThreads, s.incomplete},
		{k.treeAndThreads, s.incomplete},
		{k.slabView, s.missing},
	}
	for _, v := range views {
		need := v.need()
		if len(need) == 0 {
			continue
		}
		tasks, err := v.tasks(ctx)
		if err != nil {
			return nil, err
		}
		for _, t := range tasks {
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			s.task(t, need)
		}
	}
	return s.found, nil
}

// task looks through one task's descriptors. That it fails is no error: tasks
// exit while they are looked at, and what is found is verified afterwards.
func (s *search) task(t task, need map[uint64]bool) {
	key := table{t.leader, t.files}
	if !s.k.isDirect(t.files) || s.seen[key] {
		return
	}
	leader := t
	if !t.leads() {
		var err error
		if leader, err = s.k.task(t.leader); err != nil {
			return
		}
	}
	s.seen[key] = true
	_ = s.k.scanFiles(t.files, need, func(file uint64, fd uint32) {
		s.found[file] = append(s.found[file], holder{task: t.addr, leader: t.leader, id: leader.id(), files: t.files, fd: fd, file: file})
	})
}

func (s *search) all() map[uint64]bool {
	return s.filter(func(uint64, uint64) bool { return true })
}

func (s *search) incomplete() map[uint64]bool {
	return s.filter(func(file, count uint64) bool { return uint64(len(s.found[file])) < count })
}

func (s *search) missing() map[uint64]bool {
	return s.filter(func(file, _ uint64) bool { return len(s.found[file]) == 0 })
}

func (s *search) filter(keep func(file, count uint64) bool) map[uint64]bool {
	out := make(map[uint64]bool)
	for file, count := range s.want {
		if keep(file, count) {
			out[file] = true
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
	var out []task
	for _, leader := range leaders {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		out = append(out, leader)
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
