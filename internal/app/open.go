package app

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/vmgate/vmgate/internal/api"
	"github.com/vmgate/vmgate/internal/config"
	"github.com/vmgate/vmgate/internal/event"
	"github.com/vmgate/vmgate/internal/punt"
	"github.com/vmgate/vmgate/internal/store"
	"github.com/vmgate/vmgate/pkg/loader"
	"github.com/vmgate/vmgate/pkg/verdict"
)

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
	if err := ensureIDSPorts(cfg); err != nil {
		return err
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
		now: current, save: a.askSave, sweep: a.sweeper.ask, tally: verdict.NewTally(),
	}
	a.effects.clear = &clearances{
		dp: a.dp, book: a.book, rules: a.rules, owners: a.owners, journal: a.journal, log: a.log, now: current,
		strict: a.effects.strictest, clean: map[loader.FlowKey]*cleanFlow{},
	}
	a.sweeper.effects = a.effects
	a.keeper = &housekeeper{dp: a.dp, rules: a.rules, owners: a.owners, log: a.log, now: current, clear: a.effects.clear}
	if a.leases, err = openLeases(a.dp, a.store, a.journal, a.log, current); err != nil {
		return err
	}
	a.ids = &ids{dp: a.dp, effects: a.effects, journal: a.journal, log: a.log, now: current}
	if err := a.openMetrics(cfg, undo); err != nil {
		return err
	}
	a.sweeper.metrics = a.metrics
	a.effects.clear.metrics, a.ids.metrics = a.metrics, a.metrics
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
		if known, _ := a.book.JudgeProcess(p); kind != "" && known.Verdict < standing.Verdict {
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
