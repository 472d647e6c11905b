// Package app wires the parts of the daemon together: it is the only place
// where the kernel's maps, the decision, introspection and the IDS meet.
package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/vmgate/vmgate/internal/api"
	"github.com/vmgate/vmgate/internal/config"
	"github.com/vmgate/vmgate/internal/metrics"
	"github.com/vmgate/vmgate/internal/punt"
	"github.com/vmgate/vmgate/internal/store"
	"github.com/vmgate/vmgate/pkg/loader"
	"github.com/vmgate/vmgate/pkg/verdict"
)

// Options are what the command line gives the daemon.
type Options struct {
	ConfigPath string
	Version    string
	Log        *slog.Logger
}

// App is the daemon.
type App struct {
	opt     Options
	log     *slog.Logger
	first   *config.Config
	started time.Time
	opened  bool // everything stood once

	// Opened by Run, in this order.
	store   *store.Store
	book    *verdict.Book
	dp      *loader.Dataplane
	owners  *owners
	rules   *ruleIDs
	journal *journal
	effects *effects
	sweeper *sweeper
	keeper  *housekeeper
	leases  *leases
	ids     *ids
	queues  *punt.Queues
	holder  *holder
	decider *decider
	metrics *metrics.Metrics
	api     *api.Server

	registry   *prometheus.Registry
	exposition net.Listener // nil for none
	crew       *crew

	state   atomic.Pointer[state]
	saves   chan struct{} // asks for the book to be stored
	reloads sync.Mutex    // one change of configuration at a time

	mu        sync.Mutex
	loaded    time.Time
	lastError string // of the last reload that failed
}

// New reads the configuration. It touches nothing of the system.
func New(opt Options) (*App, error) {
	cfg, err := config.Load(opt.ConfigPath)
	if err != nil {
		return nil, err
	}
	return &App{opt: opt, log: opt.Log, first: cfg, started: time.Now(), saves: make(chan struct{}, 1)}, nil
}

// Run enforces the configuration until ctx is done or a part fails. It calls
// ready once everything stands. At each signal on reload it reads the
// configuration again and then calls ready again, whether that went well or not:
// if it did not, the one in force stays. When it returns nil, decided flows go on by the pinned maps
// and links; when it cannot even start, what it attached is detached again.
func (a *App) Run(ctx context.Context, ready func(), reload <-chan struct{}) (err error) {
	var undo cleanups
	defer func() { err = errors.Join(err, undo.run()) }()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	group, ctx := errgroup.WithContext(ctx)

	if err := a.open(ctx, &undo); err != nil {
		cancel()
		return err
	}
	a.tasks(ctx, group)
	group.Go(func() error {
		for {
			select {
			case <-ctx.Done():
				return nil
			case <-reload:
				if _, err := a.Reload(ctx); err != nil {
					a.log.Error("configuration not loaded, the one before stays in force", "error", err)
				}
				ready() // again, loaded or not
			}
		}
	})
	a.log.Info("gateway is up", "version", a.opt.Version, "segments", len(a.first.Segments), "vms", len(a.first.VMs))
	ready()
	err = group.Wait()
	cancel()
	a.crew.wait()
	a.holder.wait()
	return errors.Join(err, a.save())
}

// tasks starts everything that runs as long as the daemon does.
func (a *App) tasks(ctx context.Context, group *errgroup.Group) {
	group.Go(func() error { return a.queues.Run(ctx, a.decider.handle) })
	group.Go(func() error { return a.dp.Events(ctx, a.kernelEvent) })
	group.Go(func() error { return a.dp.Follow(ctx, a.portChanged) })
	group.Go(func() error { return a.api.Serve(ctx) })
	group.Go(func() error { return a.beat(ctx) })
	if a.exposition != nil {
		group.Go(func() error { return metrics.Serve(ctx, a.exposition, a.registry) })
	}
	group.Go(func() error { a.keeper.run(ctx, a.expire); return nil })
	group.Go(func() error { a.saver(ctx); return nil })
}

// beat shows the kernel that the daemon lives.
func (a *App) beat(ctx context.Context) error {
	tick := time.NewTicker(heartbeatEvery)
	defer tick.Stop()
	for {
		if err := a.dp.Heartbeat(); err != nil {
			return fmt.Errorf("cannot write the heartbeat: %w", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// kernelEvent takes a report of the kernel programs.
func (a *App) kernelEvent(e loader.Event) {
	switch e.Type {
	case loader.EventUndecided:
		a.decider.undecidable(e.Key)
		return
	case loader.EventDHCP:
		a.leases.answered(e)
		return
	}
	rule, _ := a.rules.get(e.Rule)
	var process *verdict.Process
	if p, _, ok := a.owners.get(e.Owner); ok {
		process = &p
	}
	a.journal.dataplane(e, a.state.Load().inv, rule, process)
	if e.Type == loader.EventSpoof {
		if err := a.effects.spoofed(e); err != nil {
			a.log.Error("cannot take a measure against a VM that forges addresses", "error", err)
		}
	}
}

// askSave has the book stored soon.
func (a *App) askSave() {
	select {
	case a.saves <- struct{}{}:
	default:
	}
}

// saver stores the book when asked, beside the decisions: a disk is slow.
func (a *App) saver(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-a.saves:
			if err := a.save(); err != nil {
				a.log.Error("cannot store what was learned", "error", err)
			}
		}
	}
}

func (a *App) save() error { return a.store.Save("book", "state", a.book.State()) }
