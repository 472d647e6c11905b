// Package app wires the parts of the daemon together: it is the only place
// where the kernel's maps, the decision, introspection and the IDS meet.
package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/vmgate/vmgate/internal/api"
	"github.com/vmgate/vmgate/internal/config"
	"github.com/vmgate/vmgate/internal/event"
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

// open opens the parts and puts the configuration in force.
func (a *App) open(ctx context.Context, undo *cleanups) error {
	cfg := a.first
	resolveMTU(cfg)
	if err := checkEngine(ctx, cfg, a.log); err != nil {
		return err
	}
	if err := os.MkdirAll(cfg.Gateway.Run, 0o755); err != nil {
		return fmt.Errorf("cannot make the run-time directory: %w", err)
	}
	steps := []func(*config.Config, *cleanups) error{
		a.openStore, a.openJournal, a.openDataplane, a.openDecision, a.openQueues,
	}
	for _, step := range steps {
		if err := step(cfg, undo); err != nil {
			return err
		}
	}
	a.crew = newCrew(ctx)
	undo.add(func() error { a.crew.wait(); return nil })
	a.holder = newHolder(ctx, cfg.Decision.HeldPerFlow, cfg.Decision.HeldPerVM, a.decider.decide)
	a.decider.holder = a.holder
	if err := a.install(cfg); err != nil {
		return err
	}
	var err error
	a.api, err = api.Listen(api.ServerConfig{Path: socketPath(cfg), Group: cfg.Gateway.Group, Backend: backend{a}, Log: a.log, Refused: a.metrics.CountRefused})
	a.opened = err == nil
	return err
}

// openStore takes the state file first: its lock tells whether another daemon
// runs.
func (a *App) openStore(cfg *config.Config, undo *cleanups) (err error) {
	if a.store, err = store.Open(storePath(cfg)); err != nil {
		return err
	}
	undo.add(a.store.Close)
	if err := a.store.Recovered(); err != nil {
		a.log.Error("the state file was damaged: learned lists and measures are lost", "error", err)
	}
	var known verdict.State
	if _, err := a.store.Load("book", "state", &known); err != nil {
		return fmt.Errorf("cannot read what was learned: %w", err)
	}
	if a.book, err = verdict.NewBookFrom(known, cfg.Knobs(), verdict.Limits{}); err != nil {
		a.log.Error("a part of what was learned makes no sense and is left out", "error", err)
	}
	return nil
}

func (a *App) openJournal(cfg *config.Config, undo *cleanups) error {
	a.journal = &journal{hub: event.NewHub()}
	if cfg.Events.File == "" {
		return nil
	}
	var err error
	if a.journal.log, err = event.OpenLog(cfg.Events.File, cfg.Events.MaxSize, a.log); err != nil {
		return err
	}
	undo.add(a.journal.log.Close)
	return nil
}

// openDataplane opens the kernel's maps. If the start fails later on, whatever
// was not there before goes away again.
func (a *App) openDataplane(cfg *config.Config, undo *cleanups) (err error) {
	_, missing := os.Stat(cfg.Gateway.Pins)
	if a.dp, err = loader.Open(loader.Options{Pins: cfg.Gateway.Pins, Log: a.log}); err != nil {
		return err
	}
	undo.add(func() error {
		err := a.dp.Close()
		if !a.opened && missing != nil {
			err = errors.Join(err, removeKernelSide(cfg))
		}
		return err
	})
	if cfg.IDS.Engine != "" {
		if err := loader.EnsureIDSPorts(idsPorts(cfg)); err != nil {
			return err
		}
	}
	if a.rules, err = adoptRules(a.dp); err != nil {
		return fmt.Errorf("cannot adopt the rules of an earlier daemon: %w", err)
	}
	return nil
}

// openDecision builds what decides, and takes over what an earlier daemon knew.
func (a *App) openDecision(cfg *config.Config, undo *cleanups) error {
	nums, err := a.numbers(cfg)
	if err != nil {
		return err
	}
	current := a.state.Load
	vmID := func(name string) uint32 { return current().inv.numbers.VMs[name] }
	if a.owners, err = adoptOwners(a.dp, newInventory(cfg, nums), vmID, a.log); err != nil {
		return fmt.Errorf("cannot adopt the processes that an earlier daemon knew: %w", err)
	}
	a.sweeper = newSweeper(a.book, current, a.log)
	a.effects = &effects{
		dp: a.dp, book: a.book, rules: a.rules, owners: a.owners, journal: a.journal, log: a.log,
		now: current, keep: a.askSave, sweep: a.sweeper.ask,
	}
	a.sweeper.effects = a.effects
	a.keeper = &housekeeper{dp: a.dp, rules: a.rules, owners: a.owners, log: a.log, now: current}
	a.ids = &ids{dp: a.dp, effects: a.effects, journal: a.journal, log: a.log, now: current}
	if err := a.openMetrics(cfg, undo); err != nil {
		return err
	}
	a.decider = &decider{
		dp: a.dp, book: a.book, owners: a.owners, effects: a.effects, journal: a.journal,
		metrics: a.metrics, log: a.log, now: current,
	}
	a.keeper.again = func(ctx context.Context, key loader.FlowKey, flow loader.Flow) error {
		return a.decider.revisit(ctx, key, flow, true)
	}
	a.remember()
	return nil
}

// remember has the book learn again what the kernel's maps say of processes, in
// case the daemon was killed before it stored it.
func (a *App) remember() {
	for _, p := range a.owners.all() {
		_, standing, _ := a.owners.standingOf(p.Instance)
		kind := map[verdict.Cause]verdict.EvidenceKind{
			verdict.CauseAlert: verdict.EvidenceAlert, verdict.CauseReport: verdict.EvidenceReport,
			verdict.CauseHidden: verdict.EvidenceHidden, verdict.CauseOperator: verdict.EvidenceOperator,
		}[standing.Cause]
		if kind != "" {
			a.book.Observe(verdict.Evidence{
				Kind: kind, Observed: time.Now(), VM: p.VM, Process: &p,
				Verdict: standing.Verdict, Cause: standing.Cause, Detail: "adopted from the kernel's maps at the daemon's start",
			})
		}
	}
}

func (a *App) openQueues(cfg *config.Config, undo *cleanups) (err error) {
	a.queues, err = punt.Open(punt.Config{
		Base: cfg.Decision.QueueBase, Queues: cfg.Decision.Queues, Log: a.log,
		Mark: loader.MarkPunt, MarkMask: loader.MarkClass,
	})
	if err != nil {
		return err
	}
	undo.add(a.queues.Close)
	return nil
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
	group.Go(func() error { a.keeper.run(ctx); return nil })
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
	if e.Type == loader.EventUndecided {
		a.decider.undecidable(e.Key)
		return
	}
	rule, _ := a.rules.get(e.Rule)
	var process *verdict.Process
	if p, _, ok := a.owners.get(e.Owner); ok {
		process = &p
	}
	a.journal.dataplane(e, a.state.Load().inv, rule, process)
}

// askSave has the book stored soon.
func (a *App) askSave() error {
	select {
	case a.saves <- struct{}{}:
	default:
	}
	return nil
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
