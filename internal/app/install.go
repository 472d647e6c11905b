package app

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"time"

	"github.com/vmgate/vmgate/internal/config"
	"github.com/vmgate/vmgate/pkg/verdict"
)

func socketPath(cfg *config.Config) string { return filepath.Join(cfg.Gateway.Run, "gatewayd.sock") }
func storePath(cfg *config.Config) string  { return filepath.Join(cfg.Gateway.State, "state.db") }
func idsDir(cfg *config.Config) string     { return filepath.Join(cfg.Gateway.Run, "ids") }

// numbers returns the numbers of a configuration's names: those in force, or
// those that an earlier daemon stored, and new ones for new names.
func (a *App) numbers(cfg *config.Config) (*numbers, error) {
	nums := newNumbers()
	if s := a.state.Load(); s != nil {
		nums = s.inv.numbers
	} else if _, err := a.store.Load("numbers", "numbers", nums); err != nil {
		return nil, fmt.Errorf("cannot read the stored numbers: %w", err)
	}
	nums, err := nums.extend(cfg)
	if err != nil {
		return nil, err
	}
	return nums, a.store.Save("numbers", "numbers", nums)
}

// install puts a configuration in force. What is new is written before what is
// old goes, so that decided flows go on. If a step fails that can fail by the
// configuration's fault, nothing of the old one has been touched yet.
func (a *App) install(cfg *config.Config) error {
	old := a.state.Load()
	nums, err := a.numbers(cfg)
	if err != nil {
		return err
	}
	next := &state{cfg: cfg, inv: newInventory(cfg, nums), policy: cfg.VerdictPolicy(), guests: map[string]*guest{}}
	if err := a.book.ReplaceConfig(cfg.ListEntries()); err != nil {
		return err
	}
	a.book.SetKnobs(cfg.Knobs())
	a.effects.tally.SetRules(cfg.VMRuleSet())
	want := mapsFor(next.inv, a.book)
	if err := addInventory(a.dp, want); err != nil {
		return err
	}
	if next.rules, err = a.rules.prepare(next.policy); err != nil {
		return err
	}
	next.clear = map[uint32]verdict.ClearAfter{}
	for i := range next.policy.Rules {
		if r := &next.policy.Rules[i]; r.Clear != (verdict.ClearAfter{}) {
			next.clear[next.rules[r.Name]] = r.Clear
		}
	}
	a.takeGuests(next, old)
	a.state.Store(next)
	if old == nil || !maps.Equal(old.rules, next.rules) {
		err = a.decider.revisitAll(context.Background())
	}
	err = errors.Join(
		err,
		a.rules.retire(),
		a.dp.Heartbeat(),
		pruneInventory(a.dp, want),
		a.leases.adopt(next.inv),
		a.endFlowsOfMoved(old, next.inv),
		a.effects.rejudge(),
		a.attach(next),
	)
	a.staff(next, old)
	if err == nil {
		a.mu.Lock()
		a.loaded, a.lastError = time.Now(), ""
		a.mu.Unlock()
	}
	return err
}

// takeGuests keeps the guests whose memory is where it was, so that they are
// not discovered again.
func (a *App) takeGuests(next, old *state) {
	for _, n := range next.inv.byID {
		if !n.hasMemory() {
			continue
		}
		samples := next.cfg.Decision.HiddenSamples
		if old != nil {
			if g := old.guests[n.name]; g != nil && g.memory == *n.vm.Memory && g.samples == samples {
				next.guests[n.name] = g
				continue
			}
		}
		next.guests[n.name] = newGuest(n.name, *n.vm.Memory, samples, a.metrics, a.log)
	}
}

// staff starts and stops the tasks that belong to guests and to the IDS.
func (a *App) staff(next, old *state) {
	if old != nil {
		for name, g := range old.guests {
			if next.guests[name] != g {
				a.crew.stop("guest " + name)
				a.crew.stop("sweep " + name)
			}
		}
		if !sameIDS(old.cfg, next.cfg) {
			a.crew.stop("ids")
		}
	}
	for name, g := range next.guests {
		a.crew.start("guest "+name, g.Keep)
		a.crew.start("sweep "+name, func(ctx context.Context) { a.sweeper.run(ctx, g) })
	}
	if next.cfg.IDS.Engine != "" {
		a.crew.start("ids", func(ctx context.Context) {
			if err := a.ids.run(ctx, next.cfg); err != nil && ctx.Err() == nil {
				a.log.Error("the IDS cannot run: what is to be checked follows failure.ids", "failure.ids", next.cfg.Failure.IDS, "error", err)
			}
		})
	}
}
