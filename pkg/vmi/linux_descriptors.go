package vmi

import (
	"bytes"
	"context"
	"encoding/binary"
	"slices"
	"sync"
	"time"
)

// A socket does not lead back to its process, so that the descriptors of all
// processes must be looked through for a new one. What is remembered of them
// makes that fast: most new sockets are found in the first few tables that are
// read again (see candidates), the others in one pass over all tables, which all
// look-ups that wait for it share.

// Bounds on what is remembered.
const (
	maxTables = 1 << 14
	maxSlots  = 1 << 18 // descriptors, over all tables: 2 MiB
	maxRecent = 16
)

// table names a process's table of descriptors: its threads share one, as a rule.
type table struct{ leader, files uint64 }

// fdTable is what was last read of a table of descriptors.
type fdTable struct {
	task, leader uint64 // a task whose table it is, and the leader of its process
	id           id     // of the leader
	files        uint64
	read         time.Time // when the reading began
	raw          []byte    // the addresses of the open files, by descriptor
	kept         bool      // false: there was no room for raw
	unlisted     bool      // only the allocator shows the task
	holdings               // its sockets
}

// descriptors is what is remembered of all tables.
type descriptors struct {
	turn chan struct{} // holds a token: whoever passes over all tables has it

	mu      sync.Mutex
	tables  map[table]*fdTable
	slots   int
	crowded bool      // there are more tables than are remembered
	recent  []table   // where sockets were found last, the latest first
	passed  time.Time // when the last complete pass began
	swept   time.Time // when the last sweep began
	past    past
}

func newDescriptors() *descriptors {
	d := &descriptors{turn: make(chan struct{}, 1), tables: make(map[table]*fdTable), past: newPast()}
	d.turn <- struct{}{}
	return d
}

// refresh reads the table of a task again. That it fails is no error: tasks exit
// while they are looked at, and what is found is verified afterwards.
func (d *descriptors) refresh(k *linuxKernel, t task, buf []byte) []byte {
	leader := t
	if !t.leads() {
		var err error
		if leader, err = k.task(t.leader); err != nil {
			return buf
		}
	}
	if !k.isDirect(t.files) {
		return buf
	}
	begun := time.Now()
	raw, err := k.readTable(t.files, buf)
	if err != nil {
		return buf
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	key := table{t.leader, t.files}
	old := d.tables[key]
	if old != nil && old.id != leader.id() {
		d.forget(key)
		old = nil
	}
	if old == nil {
		if len(d.tables) >= maxTables {
			d.crowded = true
			return raw
		}
		old = &fdTable{task: t.addr, leader: t.leader, id: leader.id(), files: t.files}
		d.tables[key] = old
	}
	if old.read.After(begun) {
		return raw // somebody was faster
	}
	old.read, old.task = begun, t.addr
	if old.kept && bytes.Equal(old.raw, raw) {
		return raw
	}
	d.slots += (len(raw) - len(old.raw)) / 8
	if old.kept = d.slots <= maxSlots; !old.kept {
		d.slots -= len(raw) / 8
		old.raw = nil
		return raw
	}
	old.raw = slices.Clone(raw) // a new one: who names its sockets reads it without the lock
	return raw
}

// forget drops a table; who had its sockets stays in the past. The caller holds
// the lock.
func (d *descriptors) forget(key table) {
	t := d.tables[key]
	for _, s := range t.sockets {
		d.past.ended(s, t)
	}
	d.slots -= len(t.raw) / 8
	delete(d.tables, key)
}

// pass reads all tables of the processes that the guest lists, that descend from
// listed ones, and of their threads, unless one that began after since has done
// so; with slabs also of those that only the allocator shows.
func (d *descriptors) pass(ctx context.Context, k *linuxKernel, since time.Time, slabs bool) error {
	select {
	case <-d.turn:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { d.turn <- struct{}{} }()
	if d.passedSince(since) {
		return nil
	}
	return d.passInTurn(ctx, k, slabs)
}

// passInTurn is pass for who has the token.
func (d *descriptors) passInTurn(ctx context.Context, k *linuxKernel, slabs bool) error {
	begun := time.Now()
	if k.known == nil {
		k = k.oneLook()
	}
	d.mu.Lock()
	d.crowded = false
	d.mu.Unlock()
	var buf []byte
	seen := make(map[table]bool)
	views := []func(context.Context) ([]task, error){k.tasksAndThreads, k.treeAndThreads}
	if slabs {
		views = append(views, k.slabView)
	}
	for n, view := range views {
		tasks, err := view(ctx)
		if err != nil {
			return err
		}
		for i, t := range tasks {
			if i&63 == 0 && ctx.Err() != nil {
				return ctx.Err()
			}
			key := table{t.leader, t.files}
			if !seen[key] {
				seen[key] = true
				buf = d.refresh(k, t, buf)
				d.mark(key, n == 2)
			}
		}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	for key, t := range d.tables {
		if t.read.Before(begun) && (slabs || !t.unlisted) {
			d.forget(key)
		}
	}
	d.passed = begun
	return nil
}

// mark says of a table whether only the allocator shows its task.
func (d *descriptors) mark(key table, unlisted bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if t := d.tables[key]; t != nil {
		t.unlisted = unlisted
	}
}

func (d *descriptors) passedSince(since time.Time) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.passed.After(since)
}

// find looks for files in what was last read of all tables. It says whether
// that was all.
func (d *descriptors) find(want map[uint64]uint64, found map[uint64][]holder) (all bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	all = !d.crowded
	for _, t := range d.tables {
		t.find(want, found)
		all = all && t.kept
	}
	return all
}

// findIn is find in one table.
func (d *descriptors) findIn(key table, want map[uint64]uint64, found map[uint64][]holder) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if t := d.tables[key]; t != nil {
		t.find(want, found)
	}
}

func (t *fdTable) find(want map[uint64]uint64, found map[uint64][]holder) {
	for i := 0; i+8 <= len(t.raw); i += 8 {
		file := binary.LittleEndian.Uint64(t.raw[i:])
		if file == 0 {
			continue
		}
		if _, wanted := want[file]; wanted {
			found[file] = append(found[file], holder{task: t.task, leader: t.leader, id: t.id, files: t.files, fd: uint32(i / 8), file: file})
		}
	}
}
