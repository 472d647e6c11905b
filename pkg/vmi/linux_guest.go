package vmi

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"
)

// attempts is how often a read that does not agree with itself is repeated.
const attempts = 3

// incompleteFor is how long holders are kept that do not account for all
// references to a file. A call under way has one too, for as long as it takes;
// but somebody may have been missed.
const incompleteFor = time.Second

// Bounds on what is kept for the next answers: holders, and bytes of programs.
const (
	maxCached       = 1 << 14
	maxProgramBytes = 4 << 20
)

// linuxGuest answers questions about a running kernel.
type linuxGuest struct {
	k       *linuxKernel
	samples int
	*memory
}

// memory is what a guest's answers leave behind for the next ones.
type memory struct {
	mu       sync.Mutex
	holders  map[uint64]cached // by struct file
	fds      *descriptors      // has a lock of its own
	programs map[image]program
	size     int                // of programs
	flows    map[flowKey]uint64 // struct sock
	held     *heldIndex         // has a lock of its own
}

// image names a program in execution and where it runs: exec gives the process
// another mm, and moving it another set of cgroups or namespaces.
type image struct {
	id                   id
	mm, cgroups, nsproxy uint64
}

// cached is who held a file, when its reference count was as given. It is
// verified on every use; the count tells of holders that have come since.
type cached struct {
	inode, count uint64
	holders      []holder
	until        time.Time // not used later; zero if the holders account for all references
}

func newLinuxGuest(k *linuxKernel, opt Options) *linuxGuest {
	m := &memory{holders: make(map[uint64]cached), fds: newDescriptors(), programs: make(map[image]program), held: newHeldIndex(), flows: make(map[flowKey]uint64)}
	return &linuxGuest{k: k, samples: opt.HiddenSamples, memory: m}
}

// during gives the guest for one operation.
func (g *linuxGuest) during(ctx context.Context) *linuxGuest {
	c := *g
	c.k = g.k.bounded(ctx)
	return &c
}

func (g *linuxGuest) OS() string { return "Linux " + g.k.release }

func (g *linuxGuest) Owners(ctx context.Context, q Query) (Answer, error) {
	g, start := g.during(ctx), time.Now()
	answer, err := retry(ctx, g.k, func() (Answer, error) { return g.owners(ctx, q) })
	if err != nil {
		return Answer{}, fmt.Errorf("cannot find the owner of port %v of protocol %d: %w", q.Local.Port(), q.Proto, err)
	}
	if answer.State != StateHeld {
		answer.Past = g.past(q)
	}
	if !answer.Cached {
		g.takeAlong()
	}
	answer.ReadAt, answer.Took = start, time.Since(start)
	return answer, nil
}

// retry repeats what the guest changed under its hands, and says which of the
// errors it is if that does not help.
func retry[T any](ctx context.Context, k *linuxKernel, try func() (T, error)) (out T, err error) {
	for range attempts {
		if err := ctx.Err(); err != nil {
			return out, err
		}
		if err := k.check(); err != nil {
			return out, err
		}
		if out, err = try(); err == nil {
			err = k.budget.ended() // then parts of the answer may be missing
		}
		if err == nil {
			return out, k.check()
		}
	}
	switch {
	case ctx.Err() != nil:
		return out, ctx.Err()
	case errors.Is(err, ErrUnstable), errors.Is(err, ErrNotUnderstood), errors.Is(err, ErrNoNamespace):
		return out, err
	}
	if changed := k.check(); changed != nil {
		return out, changed
	}
	return out, fmt.Errorf("%w: %w", ErrUnstable, err)
}

// process describes a process. Its program is read once for each exec, as soon
// as all of it is in memory: that is most of the work.
func (g *linuxGuest) process(t task, known lineages) Process {
	p := g.k.process(t, known)
	key := image{t.id(), t.mm, t.cgroups, t.nsproxy}
	g.mu.Lock()
	prog, ok := g.programs[key]
	g.mu.Unlock()
	if !ok {
		// Not what was cut short.
		if prog = g.k.program(t); prog.path != "" && len(prog.args) > 0 && g.k.budget.ended() == nil {
			g.mu.Lock()
			if g.size += prog.size(); g.size > maxProgramBytes {
				clear(g.programs)
				g.size = prog.size()
			}
			g.programs[key] = prog
			g.mu.Unlock()
		}
	}
	p.Path, p.Args, p.ArgsCut, p.BuildID = prog.path, slices.Clone(prog.args), prog.argsCut, prog.buildID
	p.Cgroup, p.Container, p.NetNS = prog.cgroup, containerID(prog.cgroup), prog.netNS
	return p
}

func (g *linuxGuest) Processes(ctx context.Context) ([]Process, error) {
	g = g.during(ctx)
	c, err := retry(ctx, g.k, func() (census, error) { return g.k.census(ctx, g.samples) })
	if err != nil {
		return nil, fmt.Errorf("cannot list the processes: %w", err)
	}
	out := make([]Process, 0, len(c.last))
	known := make(lineages)
	all := sightings(c.last)
	slices.SortFunc(all, func(a, b *sighting) int { return cmp.Compare(a.task.pid, b.task.pid) })
	for _, s := range all {
		p := g.process(s.task, known)
		p.Views = s.views
		if missed := c.missed[s.task.id()]; missed >= g.samples {
			p.Hidden, p.HiddenWhy = true, hiddenWhy(s.views, missed)
		}
		out = append(out, p)
	}
	return out, nil
}

func (g *linuxGuest) Alive(ctx context.Context, pid uint32, start uint64) (bool, error) {
	g = g.during(ctx)
	alive, err := retry(ctx, g.k, func() (bool, error) { return g.k.alive(ctx, id{pid, start}) })
	if err != nil {
		return false, fmt.Errorf("cannot tell whether process %d is alive: %w", pid, err)
	}
	return alive, nil
}

// alive says whether a process is there and has not ended; a hidden one is alive too.
func (k *linuxKernel) alive(ctx context.Context, want id) (bool, error) {
	t, err := k.find(ctx, want)
	if errors.Is(err, ErrNoProcess) {
		return false, nil
	}
	return err == nil && t.exit == 0, err
}

func (g *linuxGuest) Sockets(ctx context.Context) ([]Socket, error) {
	g = g.during(ctx)
	out, err := retry(ctx, g.k, func() ([]Socket, error) { return g.sockets(ctx) })
	if err != nil {
		return nil, fmt.Errorf("cannot list the sockets: %w", err)
	}
	return out, nil
}

// sockets reads all tables, and finds the holders of all in one search.
func (g *linuxGuest) sockets(ctx context.Context) ([]Socket, error) {
	all, err := g.k.allSockets(ctx)
	if err != nil {
		return nil, err
	}
	listed := len(all)
	if all, err = g.k.addHeld(ctx, all); err != nil {
		return nil, err
	}
	files := make(map[uint64]uint64) // file to references
	at := make([]uint64, len(all))
	out := make([]Socket, len(all))
	numbers := make(map[uint64]uint32)
	for i, s := range all {
		out[i] = Socket{
			Proto: s.proto, Local: s.local, Remote: s.remote, State: stateName(s.state), Family: s.familyName(),
			NetNS: g.k.netNumbered(s.net, numbers), Unlisted: i >= listed && tabled(s.proto),
		}
		f, ok, err := g.k.openFile(s)
		if err != nil || !ok {
			continue // closed in the meantime, or nobody's
		}
		out[i].Inode, at[i], files[f.file] = f.inode, f.file, f.count
	}
	holders, err := g.findHolders(ctx, files)
	if err != nil {
		return nil, err
	}
	if err := g.k.addRings(ctx, files, holders); err != nil {
		return nil, err
	}
	for i := range out {
		pids := make(map[uint32]bool)
		for _, h := range holders[at[i]] {
			pids[h.id.pid] = true
		}
		out[i].PIDs = slices.Sorted(maps.Keys(pids))
	}
	return out, nil
}
