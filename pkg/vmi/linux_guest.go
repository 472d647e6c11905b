package vmi

import (
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

// maxCached bounds the cache of holders.
const maxCached = 1 << 16

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
	programs map[image]program
}

// image names a program in execution: exec gives the process another mm.
type image struct {
	id id
	mm uint64
}

// cached is who held a file, when its reference count was as given. It is
// verified on every use; the count tells of holders that have come since.
type cached struct {
	inode, count uint64
	holders      []holder
}

func newLinuxGuest(k *linuxKernel, opt Options) *linuxGuest {
	m := &memory{holders: make(map[uint64]cached), programs: make(map[image]program)}
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
			return out, k.check()
		}
	}
	switch {
	case ctx.Err() != nil:
		return out, ctx.Err()
	case errors.Is(err, ErrUnstable), errors.Is(err, ErrNotUnderstood):
		return out, err
	}
	if changed := k.check(); changed != nil {
		return out, changed
	}
	return out, fmt.Errorf("%w: %w", ErrUnstable, err)
}

// owners answers a query once.
func (g *linuxGuest) owners(ctx context.Context, q Query) (Answer, error) {
	all, err := g.portSockets(q)
	if err != nil {
		return Answer{}, err
	}
	for _, group := range choose(all, q, g.k.sym["init_net"]) {
		answer, err := g.holdersOf(ctx, group)
		if err != nil {
			return Answer{}, err
		}
		if len(answer.Owners) > 0 {
			return answer, nil
		}
	}
	again, err := g.portSockets(q)
	if err != nil {
		return Answer{}, err
	}
	if !sameSockets(all, again) {
		return Answer{}, fmt.Errorf("%w: sockets come and go", ErrUnstable)
	}
	return Answer{Verified: fmt.Sprintf("%d sockets on the port without a process, read twice", len(all))}, nil
}

func sameSockets(a, b []sock) bool {
	return slices.EqualFunc(a, b, func(a, b sock) bool { return a.addr == b.addr && a.local == b.local && a.remote == b.remote })
}

// portSockets reads all sockets that a query can be about.
func (g *linuxGuest) portSockets(q Query) ([]sock, error) {
	nets, err := g.k.namespaces()
	if err != nil {
		return nil, err
	}
	var out []sock
	add := func(addr uint64) error {
		s, err := g.k.sock(addr, q.Proto)
		if err == nil && (s.local.Port() == q.Local.Port()) {
			out = append(out, s)
		}
		return err
	}
	switch q.Proto {
	case protoTCP:
		table, err := g.k.tcpTable()
		if err != nil {
			return nil, err
		}
		for _, n := range nets {
			if err := g.k.tcpPort(table, n, q.Local.Port(), add); err != nil {
				return nil, err
			}
		}
		return out, nil
	case protoUDP:
		for _, n := range nets {
			table, err := g.k.udpTable(n)
			if err != nil {
				return nil, err
			}
			slot := (uint32(q.Local.Port()) + n.mix) & table.mask
			err = g.k.udpSlot(table, slot, func(addr uint64) error {
				s, err := g.k.sock(addr, q.Proto)
				if err == nil && s.local.Port() == q.Local.Port() && s.net == n.addr {
					out = append(out, s)
				}
				return err
			})
			if err != nil {
				return nil, err
			}
		}
		return out, nil
	}
	return g.portless(q)
}

// portless reads the sockets that send a protocol without ports. Raw sockets
// keep the protocol's number where others keep the port, ping sockets the
// identifier of their echo requests: where the query names one and it is found
// there, that is the one.
func (g *linuxGuest) portless(q Query) ([]sock, error) {
	var raw, ping []sock
	collect := func(to *[]sock, port uint16) eachSock {
		return func(addr uint64) error {
			s, err := g.k.sock(addr, q.Proto)
			if err == nil && s.local.Port() == port {
				*to = append(*to, s)
			}
			return err
		}
	}
	if q.Proto == protoICMP || q.Proto == protoICMPv6 {
		if err := g.k.pingSockets(collect(&ping, q.Local.Port())); err != nil {
			return nil, err
		}
		if len(ping) > 0 && q.Local.Port() != 0 {
			return ping, nil
		}
	}
	for _, table := range []string{"raw_v4_hashinfo", "raw_v6_hashinfo"} {
		if err := g.k.rawSockets(table, collect(&raw, uint16(q.Proto))); err != nil {
			return nil, err
		}
	}
	return append(raw, ping...), nil
}

// holdersOf finds the processes that hold any of the sockets.
func (g *linuxGuest) holdersOf(ctx context.Context, socks []sock) (Answer, error) {
	files := make(map[uint64]openFile)
	for _, s := range socks {
		f, ok, err := g.k.openFile(s)
		if err != nil {
			return Answer{}, err
		}
		if ok {
			files[f.file] = f
		}
	}
	if len(files) == 0 {
		return Answer{}, nil
	}
	holders, hit, err := g.resolve(ctx, files)
	if err != nil || len(holders) == 0 {
		return Answer{}, err
	}
	// Read again: sockets still lead to these files, and the files are still there.
	for _, s := range socks {
		now, err := g.k.sock(s.addr, s.proto)
		if err != nil || now.local != s.local || now.remote != s.remote || now.socket != s.socket {
			return Answer{}, fmt.Errorf("%w: socket on port %d changed (%w)", ErrUnstable, s.local.Port(), errors.Join(err))
		}
	}
	answer := Answer{Cached: hit, Verified: fmt.Sprintf("%d sockets, %d files and %d descriptors, pids and start times read again", len(socks), len(files), len(holders))}
	answer.Owners, err = g.describe(ctx, holders)
	return answer, err
}

// resolve gives the verified holders of files, from the cache where it holds.
func (g *linuxGuest) resolve(ctx context.Context, files map[uint64]openFile) (out []holder, hit bool, err error) {
	want := make(map[uint64]uint64)
	for file, f := range files {
		g.mu.Lock()
		c, ok := g.holders[file]
		g.mu.Unlock()
		if ok && c.inode == f.inode && c.count == f.count && g.allHold(c.holders, file) {
			out = append(out, c.holders...)
			continue
		}
		want[file] = f.count
	}
	if len(want) == 0 {
		return out, true, nil
	}
	found, err := g.k.findHolders(ctx, want)
	if err != nil {
		return nil, false, err
	}
	for file := range want {
		if !g.allHold(found[file], file) {
			return nil, false, fmt.Errorf("%w: a descriptor was closed or passed on", ErrUnstable)
		}
		if len(found[file]) > 0 {
			g.remember(file, cached{inode: files[file].inode, count: files[file].count, holders: found[file]})
		}
		out = append(out, found[file]...)
	}
	return out, false, nil
}

func (g *linuxGuest) allHold(holders []holder, file uint64) bool {
	return !slices.ContainsFunc(holders, func(h holder) bool { return !g.k.verify(h, file) })
}

func (g *linuxGuest) remember(file uint64, c cached) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.holders) >= maxCached {
		clear(g.holders) // what is still asked for comes back at the price of one search
	}
	g.holders[file] = c
}

// describe turns holders into processes, each once, by pid.
func (g *linuxGuest) describe(ctx context.Context, holders []holder) ([]Process, error) {
	byLeader := make(map[uint64]bool)
	var out []Process
	for _, h := range holders {
		if byLeader[h.leader] {
			continue
		}
		byLeader[h.leader] = true
		t, err := g.k.task(h.leader)
		if err != nil || t.id() != h.id {
			return nil, fmt.Errorf("%w: owner %d has just ended", ErrUnstable, h.id.pid)
		}
		views, why, err := g.k.hidden(ctx, t, g.samples)
		if err != nil {
			return nil, err
		}
		p := g.process(t)
		p.Views, p.Hidden, p.HiddenWhy = views, why != "", why
		out = append(out, p)
	}
	slices.SortFunc(out, func(a, b Process) int { return int(a.PID) - int(b.PID) })
	return out, nil
}

// process describes a process. Its program is read once for each exec, as soon
// as all of it is in memory: that is most of the work.
func (g *linuxGuest) process(t task) Process {
	p := g.k.process(t)
	key := image{t.id(), t.mm}
	g.mu.Lock()
	prog, ok := g.programs[key]
	g.mu.Unlock()
	if !ok {
		if prog = g.k.program(t); prog.path != "" && len(prog.args) > 0 {
			g.mu.Lock()
			if len(g.programs) >= maxCached {
				clear(g.programs)
			}
			g.programs[key] = prog
			g.mu.Unlock()
		}
	}
	p.Path, p.Args, p.BuildID = prog.path, slices.Clone(prog.args), prog.buildID
	return p
}

func (g *linuxGuest) Processes(ctx context.Context) ([]Process, error) {
	g = g.during(ctx)
	c, err := retry(ctx, g.k, func() (census, error) { return g.k.census(ctx, g.samples) })
	if err != nil {
		return nil, fmt.Errorf("cannot list the processes: %w", err)
	}
	out := make([]Process, 0, len(c.last))
	for key, s := range c.last {
		p := g.process(s.task)
		p.Views = s.views
		if c.missed[key] >= g.samples {
			p.Hidden, p.HiddenWhy = true, hiddenWhy(s.views, c.missed[key])
		}
		out = append(out, p)
	}
	slices.SortFunc(out, func(a, b Process) int { return int(a.PID) - int(b.PID) })
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

// alive looks for a process where its pid leads to, and in the other views if
// it is not there: a hidden one is alive too.
func (k *linuxKernel) alive(ctx context.Context, want id) (bool, error) {
	if pid, err := k.pidStruct(want.pid); err == nil && pid != 0 {
		if t, ok := k.taskOfPID(pid); ok && t.id() == want {
			return k.living(t) && t.exit == 0, nil
		}
	}
	for _, view := range []func(context.Context) ([]task, error){k.treeView, k.slabView} {
		tasks, err := view(ctx)
		if err != nil {
			return false, err
		}
		for _, t := range tasks {
			if t.leads() && t.id() == want && k.living(t) {
				return t.exit == 0, nil
			}
		}
	}
	return false, nil
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
	files := make(map[uint64]uint64) // file to references
	at := make([]uint64, len(all))
	out := make([]Socket, len(all))
	for i, s := range all {
		out[i] = Socket{Proto: s.proto, Local: s.local, Remote: s.remote, State: stateName(s.state)}
		f, ok, err := g.k.openFile(s)
		if err != nil || !ok {
			continue // closed in the meantime, or nobody's
		}
		out[i].Inode, at[i], files[f.file] = f.inode, f.file, f.count
	}
	holders, err := g.k.findHolders(ctx, files)
	if err != nil {
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
