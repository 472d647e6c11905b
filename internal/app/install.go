package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"time"

	"github.com/vmgate/vmgate/internal/api"
	"github.com/vmgate/vmgate/internal/config"
	"github.com/vmgate/vmgate/internal/store"
	"github.com/vmgate/vmgate/pkg/loader"
	"github.com/vmgate/vmgate/pkg/snort"
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
	want := mapsFor(next.inv, a.book)
	if err := addInventory(a.dp, want); err != nil {
		return err
	}
	if next.rules, err = a.rules.prepare(next.policy); err != nil {
		return err
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
		a.crew.start("guest "+name, g.keep)
		a.crew.start("sweep "+name, func(ctx context.Context) { a.sweeper.run(ctx, g) })
	}
	if next.cfg.IDS.Engine != "" {
		a.crew.start("ids", func(ctx context.Context) {
			if err := a.ids.run(ctx, next.cfg); err != nil && ctx.Err() == nil {
				a.log.Error("the IDS cannot run: what is to be checked follows failure.ids", "failure.ids", next.cfg.Failure.IDS, "error", err)
			}
			a.ids.set(0, false) // no process is left
		})
	}
}

// bridgeOf names the gateway's own bridge for a layer 2 group.
func bridgeOf(group uint32) string { return fmt.Sprintf("vmg-br%d", group) }

// attach makes the bridges and attaches the programs to the vNICs that are
// there; those that are not are attached when they appear.
func (a *App) attach(s *state) error {
	if err := a.ids.tell(s.cfg); err != nil {
		return err
	}
	for _, group := range s.inv.groups() {
		if err := loader.EnsureBridge(bridgeOf(group), s.cfg.Gateway.Pins); err != nil {
			return err
		}
	}
	states, err := a.dp.SetPorts(s.ports())
	for _, port := range states {
		a.reportPort(port)
	}
	return errors.Join(err, a.bridgeAddresses(s))
}

// ports lists the ports that the configuration asks for.
func (s *state) ports() []loader.Port {
	var ports []loader.Port
	for _, seg := range s.inv.segments {
		ports = append(ports, loader.Port{
			ID: seg.number, Device: seg.VNIC, Kind: loader.PortVNIC, Segment: seg.number, Group: seg.group,
			HasRouter: s.inv.hasRouter(seg), Reflect: seg.Reflect, Bridge: bridgeOf(seg.group),
		})
	}
	if s.cfg.IDS.Engine != "" {
		pair, group := idsPorts(s.cfg), s.inv.groups()[0]
		ports = append(ports,
			loader.Port{ID: idsInPort, Device: pair.In, Kind: loader.PortIDSIn, Group: group},
			loader.Port{ID: idsOutPort, Device: pair.Out, Kind: loader.PortIDSOut, Group: group})
	}
	return ports
}

// bridgeAddresses enters the known MAC addresses into the bridges, so that they
// flood nothing and learn nothing wrong.
func (a *App) bridgeAddresses(s *state) error {
	attached := map[uint32]bool{}
	for _, port := range a.dp.Ports() {
		attached[port.ID] = port.Attached
	}
	entries := map[uint32][]loader.FDBEntry{}
	for _, n := range s.inv.byID {
		if !attached[n.segment.number] {
			continue
		}
		for _, mac := range n.macs {
			entries[n.segment.group] = append(entries[n.segment.group], loader.FDBEntry{MAC: loader.MAC(mac), Device: n.segment.VNIC})
		}
	}
	var errs []error
	for _, group := range s.inv.groups() {
		errs = append(errs, loader.SetBridgeFDB(bridgeOf(group), entries[group]))
	}
	return errors.Join(errs...)
}

// portChanged follows a vNIC that came or went.
func (a *App) portChanged(port loader.PortState) {
	a.reportPort(port)
	if !port.Attached {
		return
	}
	if err := a.bridgeAddresses(a.state.Load()); err != nil {
		a.log.Error("cannot tell the bridge the known addresses", "error", err)
	}
}

func (a *App) reportPort(port loader.PortState) {
	switch {
	case port.Attached:
		a.journal.note("config", "port "+port.Device+" attached")
	case errors.Is(port.Err, loader.ErrNoDevice):
		a.log.Warn("vNIC is missing; it is attached when it appears", "device", port.Device)
		a.journal.note("config", "vNIC "+port.Device+" is missing")
	default:
		a.log.Error("port not attached: nothing passes there", "device", port.Device, "error", port.Err)
	}
}

// Reload reads the configuration file again and puts it in force. If it is
// wrong, the one in force stays and the error says why.
func (a *App) Reload(ctx context.Context) (api.Changes, error) {
	cfg, err := config.Load(a.opt.ConfigPath)
	if err != nil {
		return api.Changes{}, a.refused(fmt.Errorf("%w: %w", api.ErrInvalid, err))
	}
	return a.change(ctx, cfg)
}

// change replaces the configuration in force, or says why it cannot.
func (a *App) change(ctx context.Context, cfg *config.Config) (api.Changes, error) {
	a.reloads.Lock()
	defer a.reloads.Unlock()
	old := a.state.Load()
	resolveMTU(cfg)
	if err := a.changeable(ctx, old.cfg, cfg); err != nil {
		return api.Changes{}, a.refused(fmt.Errorf("%w: %w", api.ErrInvalid, err))
	}
	if cfg.IDS.Engine != "" && old.cfg.IDS.Engine == "" {
		if err := loader.EnsureIDSPorts(idsPorts(cfg)); err != nil {
			return api.Changes{}, a.refused(err)
		}
	}
	if err := a.install(cfg); err != nil {
		return api.Changes{}, a.refused(errors.Join(err, a.install(old.cfg)))
	}
	if cfg.IDS.Engine != "" && sameIDS(old.cfg, cfg) {
		if err := a.ids.reload(ctx); err != nil {
			return api.Changes{}, a.refused(err)
		}
	}
	changes := api.Changes{Lines: config.Diff(old.cfg, cfg)}
	a.log.Info("configuration loaded", "changes", len(changes.Lines))
	a.journal.note("config", fmt.Sprintf("configuration loaded, %d changes", len(changes.Lines)))
	return changes, nil
}

// changeable says whether a running daemon can take over the configuration.
func (a *App) changeable(ctx context.Context, old, cfg *config.Config) error {
	if old.Gateway != cfg.Gateway {
		return errors.New("the gateway section has changed: restart the daemon for that (decided traffic goes on meanwhile)")
	}
	if old.Decision.Queues != cfg.Decision.Queues || old.Decision.QueueBase != cfg.Decision.QueueBase ||
		old.Decision.HeldPerFlow != cfg.Decision.HeldPerFlow || old.Decision.HeldPerVM != cfg.Decision.HeldPerVM ||
		old.Metrics != cfg.Metrics || old.Events != cfg.Events {
		return errors.New("decision.queues, queue-base and held-*, metrics and events are read at the start: restart the daemon to change them")
	}
	return checkEngine(ctx, cfg, a.log)
}

// refused records why a configuration was not loaded.
func (a *App) refused(err error) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.lastError = err.Error()
	return err
}

// Teardown removes what a daemon that no longer runs left in the kernel:
// programs, maps, bridges, IDS ports, and its engine. Nothing passes the gateway's vNICs by its
// word afterwards, and nothing is filtered.
func Teardown(opt Options) error {
	cfg, err := config.Load(opt.ConfigPath)
	if err != nil {
		return err
	}
	held, err := store.Open(storePath(cfg)) // locked while a daemon runs
	if err != nil {
		return err
	}
	err = removeKernelSide(cfg)
	if gone := os.Remove(socketPath(cfg)); gone != nil && !errors.Is(gone, os.ErrNotExist) {
		err = errors.Join(err, gone)
	}
	return errors.Join(err, held.Close())
}

func removeKernelSide(cfg *config.Config) error {
	return errors.Join(snort.Clear(idsDir(cfg)), loader.Remove(cfg.Gateway.Pins), loader.RemoveIDSPorts(idsPorts(cfg)))
}

// checkEngine has the engine read its rules, before anything depends on it.
func checkEngine(ctx context.Context, cfg *config.Config, log *slog.Logger) error {
	if cfg.IDS.Engine == "" {
		return nil
	}
	for _, s := range cfg.Segments {
		if s.Group != cfg.Segments[0].Group {
			return fmt.Errorf("ids: one engine serves one layer 2 group, but segment %s is in group %s and segment %s in %s: run a gateway for each group, or leave ids out",
				cfg.Segments[0].Name, cfg.Segments[0].Group, s.Name, s.Group)
		}
	}
	engine, err := snort.New(engineConfig(cfg, log))
	if err != nil {
		return err
	}
	return engine.Check(ctx)
}
