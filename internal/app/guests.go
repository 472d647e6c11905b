package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"sync"
	"time"

	"github.com/vmgate/vmgate/internal/config"
	"github.com/vmgate/vmgate/internal/metrics"
	"github.com/vmgate/vmgate/pkg/verdict"
	"github.com/vmgate/vmgate/pkg/vmi"
)

// How long to wait before a guest's memory is tried again: while it boots, and
// when it cannot be read or understood.
const (
	retryBooting = time.Second
	retryFailing = 5 * time.Second
)

// checkFile is how often the memory file is looked at: no machine boots as fast.
const checkFile = 500 * time.Millisecond

// guest keeps the introspection of one VM open: it waits for the guest to boot,
// discovers its kernel, and discovers it anew after a reboot.
type guest struct {
	vm      string
	memory  config.Memory
	samples int
	metrics *metrics.Metrics
	log     *slog.Logger

	mu     sync.RWMutex
	open   vmi.Guest // nil while not ready
	state  string    // waiting, ready, failing
	detail string
	reopen chan struct{} // asks the keeper to discover the guest anew
}

func newGuest(vm string, memory config.Memory, samples int, m *metrics.Metrics, log *slog.Logger) *guest {
	return &guest{
		vm: vm, memory: memory, samples: samples, metrics: m, log: log.With("vm", vm),
		state: "waiting", detail: "not tried yet", reopen: make(chan struct{}, 1),
	}
}

// keep discovers the guest, again whenever it changes, until ctx is done.
func (g *guest) keep(ctx context.Context) {
	for ctx.Err() == nil {
		g.session(ctx)
	}
}

// session opens the guest's memory and holds it until the guest changes.
func (g *guest) session(ctx context.Context) {
	file, err := os.Stat(g.memory.File)
	if err != nil {
		g.fail(ctx, "failing", fmt.Errorf("cannot find the memory file: %w", err))
		return
	}
	mem, err := vmi.OpenFile(g.memory.File, g.memory.Machine)
	if err != nil {
		g.fail(ctx, "failing", err)
		return
	}
	defer mem.Close()
	opened, err := vmi.Open(ctx, mem, vmi.Options{HiddenSamples: g.samples, Log: g.log})
	if err != nil {
		state := "failing"
		if errors.Is(err, vmi.ErrNotReady) {
			state = "waiting"
		}
		g.fail(ctx, state, err)
		return
	}
	g.set(opened, "ready", "")
	g.log.Info("guest discovered", "os", opened.OS())
	g.untilChanged(ctx, file)
	g.set(nil, "waiting", "the guest has changed")
}

// untilChanged returns when the guest's kernel is another, or when another file
// stands at its path: a machine that was switched off and on has a new one, and
// the old one, which is still open, would answer as if nothing had happened.
func (g *guest) untilChanged(ctx context.Context, file os.FileInfo) {
	tick := time.NewTicker(checkFile)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-g.reopen:
			g.log.Info("guest has changed, discovering it anew")
			return
		case <-tick.C:
			if now, err := os.Stat(g.memory.File); err != nil || !os.SameFile(file, now) {
				g.log.Info("the guest's memory file was replaced, opening it anew")
				return
			}
		}
	}
}

// fail records why the guest cannot be read and waits before the next try.
func (g *guest) fail(ctx context.Context, state string, err error) {
	if g.set(nil, state, err.Error()) {
		g.log.Warn("guest memory cannot be used yet", "state", state, "error", err)
	}
	pause := retryBooting
	if state == "failing" {
		pause = retryFailing
	}
	select {
	case <-ctx.Done():
	case <-time.After(pause):
	}
}

// set records the state and tells whether it is news.
func (g *guest) set(open vmi.Guest, state, detail string) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	news := g.state != state || g.detail != detail
	g.open, g.state, g.detail = open, state, detail
	return news
}

// status returns the state, the operating system and the detail, for people.
func (g *guest) status() (state, os, detail string) {
	g.mu.RLock()
	defer g.mu.RUnlock()
	if g.open != nil {
		os = g.open.OS()
	}
	return g.state, os, g.detail
}

// current returns the open guest, or an error that says why there is none.
func (g *guest) current() (vmi.Guest, error) {
	g.mu.RLock()
	defer g.mu.RUnlock()
	if g.open == nil {
		return nil, fmt.Errorf("cannot introspect %s: %s: %s", g.vm, g.state, g.detail)
	}
	return g.open, nil
}

// noticed lets the keeper know of errors that mean another kernel.
func (g *guest) noticed(err error) {
	if errors.Is(err, vmi.ErrChanged) {
		select {
		case g.reopen <- struct{}{}:
		default:
		}
	}
}

// owner looks up which process holds the local end of a flow. Every outcome is
// an answer: a failure is OwnerUnavailable, with the reason as its detail.
func (g *guest) owner(ctx context.Context, proto uint8, local, remote netip.AddrPort) verdict.Owner {
	begin := time.Now()
	answer, err := g.ask(ctx, vmi.Query{Proto: proto, Local: local, Remote: remote})
	result := verdict.Owner{Observed: begin}
	switch {
	case err != nil:
		result.State, result.Detail = verdict.OwnerUnavailable, err.Error()
	case len(answer.Owners) == 0:
		result.State, result.Detail = verdict.OwnerNone, "no process holds the port"
		result.Observed = answer.ReadAt
	default:
		result.State, result.Detail = verdict.OwnerKnown, answer.Verified
		result.Observed = answer.ReadAt
		for _, p := range answer.Owners {
			result.Processes = append(result.Processes, describe(g.vm, p))
		}
	}
	g.metrics.ObserveIntrospection(result.State.String(), time.Since(begin))
	return result
}

// ask looks the owner up in the guest as it is now. The context bounds it.
func (g *guest) ask(ctx context.Context, query vmi.Query) (vmi.Answer, error) {
	open, err := g.current()
	if err != nil {
		return vmi.Answer{}, err
	}
	answer, err := open.Owners(ctx, query)
	if err != nil {
		g.noticed(err)
		return vmi.Answer{}, fmt.Errorf("cannot look up the owner in %s: %w", g.vm, err)
	}
	return answer, nil
}

// describe turns introspection's process into the decision's.
func describe(vm string, p vmi.Process) verdict.Process {
	return verdict.Process{
		Instance:    verdict.Instance{VM: vm, PID: p.PID, Start: p.Start},
		Name:        p.Name,
		Path:        p.Path,
		UID:         p.UID,
		Fingerprint: p.BuildID,
		Hidden:      p.Hidden,
	}
}
