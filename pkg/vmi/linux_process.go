package vmi

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Names of the views, as Process.Views gives them.
const (
	viewTasks = "tasks"
	viewPIDs  = "pids"
	viewTree  = "tree"
	viewSlab  = "slab"
	// viewRunning is a sample: who is missing there sleeps.
	viewRunning = "running"
)

// lasting are the views that show a process as long as it lives.
var lasting = []string{viewTasks, viewPIDs, viewTree, viewSlab}

// sampleGap is the pause between two looks at a process that seems hidden: long
// enough for a fork or an exit that is under way to be over.
const sampleGap = time.Millisecond

// sighting is one process in one sample.
type sighting struct {
	task  task
	views []string
	room  [5]string // for views
}

// sample looks at all views once.
func (k *linuxKernel) sample(ctx context.Context) (map[id]*sighting, error) {
	k = k.oneLook()
	defer k.known.done()
	seen := make(map[id]*sighting, 512)
	var room []sighting // one by one they take longer to make
	for _, v := range []struct {
		name string
		walk func(context.Context) ([]task, error)
	}{{viewTasks, k.tasksView}, {viewPIDs, k.pidsView}, {viewTree, k.treeView}, {viewSlab, k.slabView}, {viewRunning, k.runningView}} {
		tasks, err := v.walk(ctx)
		if err != nil {
			return nil, err
		}
		for _, t := range tasks {
			if !t.leads() { // a thread, by which a process shows that is not there itself
				if t, err = k.task(t.leader); err != nil {
					continue // exiting
				}
			}
			s := seen[t.id()]
			if s == nil {
				if !k.living(t) {
					continue
				}
				if len(room) == cap(room) {
					room = make([]sighting, 0, 512)
				}
				room = append(room, sighting{task: t})
				s = &room[len(room)-1]
				s.views = s.room[:0]
				seen[t.id()] = s
			}
			if !slices.Contains(s.views, v.name) {
				s.views = append(s.views, v.name)
			}
		}
		if cap(tasks) > cap(k.known.spare) {
			k.known.spare = tasks
		}
	}
	return seen, nil
}

// census is the outcome of several samples.
type census struct {
	last    map[id]*sighting
	missed  map[id]int // in how many samples ps would not have shown it
	looks   map[id]int // in how many samples it was there
	altered map[id]int // in how many samples its own record named another pid
	samples int
}

// census samples until every process is in all views, or n times; n times more
// if the last look was the first that showed somebody on a run queue alone.
func (k *linuxKernel) census(ctx context.Context, n int) (census, error) {
	c := census{missed: make(map[id]int), altered: make(map[id]int)}
	for more := 0; c.samples < n+more; {
		if c.samples > 0 {
			if err := pause(ctx, sampleGap); err != nil {
				return c, err
			}
		}
		seen, err := k.quietly(ctx, func() (map[id]*sighting, error) { return k.sample(ctx) })
		if err != nil {
			return c, err
		}
		if c.looks == nil {
			c.looks = make(map[id]int, len(seen))
		}
		for key, s := range seen {
			if before := c.last[key]; before != nil {
				s.views = union(before.views, s.views)
			}
			c.looks[key]++
			if s.task.altered {
				c.altered[key]++
			}
			if !k.shown(s) {
				c.missed[key]++
			}
		}
		c.last = seen
		c.samples++
		k.followed.keep(seen)
		if !slices.ContainsFunc(sightings(seen), func(s *sighting) bool { return s.task.altered || len(missingViews(s.views)) > 0 }) {
			break
		}
		if c.samples == n && slices.ContainsFunc(sightings(seen), func(s *sighting) bool {
			return c.looks[s.task.id()] < n && slices.Equal(s.views, []string{viewRunning})
		}) {
			more = n - 1
		}
	}
	return c, nil
}

func sightings(m map[id]*sighting) []*sighting {
	out := make([]*sighting, 0, len(m))
	for _, s := range m {
		out = append(out, s)
	}
	return out
}

// shown says whether ps shows a process: it was seen in that view, or is there
// now (it may have been born while the views were read).
func (k *linuxKernel) shown(s *sighting) bool {
	if slices.Contains(s.views, viewPIDs) {
		return true
	}
	ok, err := k.listed(s.task)
	if ok {
		s.views = append(s.views, viewPIDs)
	}
	return ok || err != nil
}

// union keeps the order of the views.
func union(a, b []string) []string {
	var out []string
	for _, v := range append(slices.Clone(lasting), viewRunning) {
		if slices.Contains(a, v) || slices.Contains(b, v) {
			out = append(out, v)
		}
	}
	return out
}

// quietly runs look, again (at most three times) if the kernel was in the
// middle of linking or unlinking a process: what looks hidden then is not. A
// paused guest may stay there for as long as it likes.
func (k *linuxKernel) quietly(ctx context.Context, look func() (map[id]*sighting, error)) (seen map[id]*sighting, err error) {
	for range attempts {
		seen, err = look()
		busy := err == nil && k.linking()
		if err == nil && !busy {
			return seen, nil
		}
		if err == nil {
			err = fmt.Errorf("%w: processes are being made", ErrUnstable)
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if perr := pause(ctx, sampleGap); perr != nil {
			return nil, perr
		}
	}
	return nil, err
}

// linking says whether somebody holds the lock of the process lists for
// writing (include/asm-generic/qrwlock.h: the low byte is the writer's).
func (k *linuxKernel) linking() bool {
	va, ok := k.sym["tasklist_lock"]
	if !ok || k.QueuedLock.size == 0 {
		return false
	}
	writer, err := k.u8(va + uint64(k.QueuedLock.off))
	return err == nil && writer != 0
}

// pause waits, but no longer than ctx allows.
func pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}

// views checks one process against each view on its own, without walking any:
// its neighbours in the lists must know it.
func (k *linuxKernel) views(t task) []string {
	out := make([]string, 0, len(lasting))
	if k.linked(t.addr + uint64(k.TaskTasks.off)) {
		out = append(out, viewTasks)
	}
	if ok, err := k.listed(t); err == nil && ok {
		out = append(out, viewPIDs)
	}
	if k.linked(t.addr + uint64(k.TaskSibling.off)) {
		out = append(out, viewTree)
	}
	if k.inSlab(t.addr) {
		out = append(out, viewSlab)
	}
	return out
}

// linked says whether a list node is among others that agree about it.
func (k *linuxKernel) linked(node uint64) bool {
	nextAt, prevAt := field{size: 8}, field{off: 8, size: 8}
	r, err := k.scratch.record(k, node, spanOf(nextAt, prevAt))
	if err != nil {
		return false
	}
	next, prev := r.uint(nextAt), r.uint(prevAt)
	k.scratch.put(r)
	if next == node {
		return false
	}
	back, err := k.u64(next + 8)
	if err != nil || back != node {
		return false
	}
	forth, err := k.u64(prev)
	return err == nil && forth == node
}

// hidden looks at one process, which was read just now, up to n times; it is hidden if it lives and ps
// shows it in none of them.
func (k *linuxKernel) hidden(ctx context.Context, t task, n int) (views []string, why string, err error) {
	now := t
	for i := range n {
		if i > 0 {
			if err := pause(ctx, sampleGap); err != nil {
				return nil, "", err
			}
			now, err = k.task(t.addr)
		}
		if err != nil || now.id() != t.id() || !k.living(now) {
			return nil, "", fmt.Errorf("%w: process %d has just ended", ErrUnstable, t.pid)
		}
		if views = k.views(now); slices.Contains(views, viewPIDs) {
			return views, "", nil
		}
		if k.linking() {
			return nil, "", fmt.Errorf("%w: processes are being made", ErrUnstable)
		}
	}
	return views, hiddenWhy(views, n), nil
}

func hiddenWhy(views []string, samples int) string {
	seen := strings.Join(views, ", ")
	if seen == "" {
		seen = "none"
	}
	return fmt.Sprintf("its own ps does not show it: seen in %s, missing from %s, in %d samples that agree",
		seen, strings.Join(missingViews(views), ", "), samples)
}

// missingViews are the lasting ones that are not among views.
func missingViews(views []string) []string {
	var missing []string
	for _, v := range lasting {
		if !slices.Contains(views, v) {
			missing = append(missing, v)
		}
	}
	return missing
}
