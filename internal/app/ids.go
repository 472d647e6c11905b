package app

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"path/filepath"
	"reflect"
	"slices"
	"sync"

	"golang.org/x/sync/errgroup"

	"github.com/vmgate/vmgate/internal/config"
	"github.com/vmgate/vmgate/pkg/loader"
	"github.com/vmgate/vmgate/pkg/snort"
)

// engine inspects what goes through a pair of ports: one that the daemon runs
// (snort.Engine), or one that others run (snort.External).
type engine interface {
	Run(ctx context.Context, onState func(snort.State), onAlert func(snort.Alert)) error
	State() snort.State
}

// ids has the engine inspect, and turns its alerts into evidence.
type ids struct {
	dp      *loader.Dataplane
	effects *effects
	journal *journal
	log     *slog.Logger
	now     func() *state
	repeats repeats
	beats   heartbeats

	mu     sync.Mutex
	engine engine        // nil while none runs
	own    *snort.Engine // the same, nil where others run it: only our own can be killed and started again
	pid    int           // of the process that is to be proven or was; 0 for none, and for what others run
	up     bool          // canaries come through it
}

// runsEngine says whether the daemon runs the engine itself.
func runsEngine(cfg *config.Config) bool {
	return cfg.IDS.Engine != "" && cfg.IDS.Engine != config.EngineExternal
}

// idsPorts names the port pair of a gateway: two of its vNICs where others run the
// engine.
func idsPorts(cfg *config.Config) loader.IDSPorts {
	if cfg.IDS.Engine == config.EngineExternal {
		return loader.IDSPorts{In: cfg.IDS.Ports.In, Out: cfg.IDS.Ports.Out}
	}
	return localPorts(cfg)
}

// localPorts names the port pair of an engine that the daemon runs. It has a network
// namespace of its own, so that several gateways of one machine stay apart.
func localPorts(cfg *config.Config) loader.IDSPorts {
	return loader.IDSPorts{
		In: "ids-in", Out: "ids-out",
		EngineIn: "ids-in-p", EngineOut: "ids-out-p",
		NetNS: filepath.Base(cfg.Gateway.Pins) + "-ids",
		MTU:   cfg.IDS.MTU,
	}
}

// engineConfig derives the engine's configuration from the gateway's.
func engineConfig(cfg *config.Config, log *slog.Logger) snort.Config {
	ports := idsPorts(cfg)
	var home []netip.Prefix
	for _, s := range cfg.Segments {
		if s.Kind != "wan" {
			home = append(home, s.Subnets...)
		}
	}
	return snort.Config{
		Engine: cfg.IDS.Engine, Binary: cfg.IDS.Binary,
		NetNS: filepath.Join("/run/netns", ports.NetNS),
		In:    ports.EngineIn, Out: ports.EngineOut,
		Rules: append(slices.Clone(cfg.IDS.Rules), heartbeatRules(cfg)), HomeNets: home, MTU: cfg.IDS.MTU,
		Dir: idsDir(cfg),
		Log: log,
	}
}

// externalConfig says where the alerts of an engine that others run come from.
func externalConfig(cfg *config.Config, log *slog.Logger) snort.ExternalConfig {
	a := cfg.IDS.Alerts
	c := snort.ExternalConfig{
		Format: a.Format, Unstated: snort.Action(a.Unstated),
		Socket: a.Socket, File: a.File, Datagrams: a.Datagrams, Spool: a.Spool, Log: log,
	}
	if a.Listen != "" {
		c.TLS = &snort.TLSConfig{Listen: a.Listen, Certificate: a.Certificate, Key: a.Key, Authority: a.Authority, Names: a.Names}
	}
	return c
}

// newEngine makes the engine of a configuration; own is nil where others run it.
func newEngine(cfg *config.Config, log *slog.Logger) (e engine, own *snort.Engine, err error) {
	if !runsEngine(cfg) {
		e, err = snort.NewExternal(externalConfig(cfg, log))
		return e, nil, err
	}
	own, err = snort.New(engineConfig(cfg, log))
	return own, own, err
}

// run keeps the engine running until ctx is done, or takes the alerts of one that
// others run. What is to be checked while it is not up is dropped, or forwarded
// where the operator chose so.
func (i *ids) run(ctx context.Context, cfg *config.Config) error {
	engine, own, err := newEngine(cfg, i.log)
	if err != nil {
		return err
	}
	i.mu.Lock()
	i.engine, i.own = engine, own
	i.mu.Unlock()
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return engine.Run(ctx, i.changed, i.alert) })
	group.Go(func() error { i.watchEngine(ctx, cfg, engine, own); return nil })
	group.Go(func() error { i.tellRepeats(ctx); return nil })
	return group.Wait()
}

// changed follows the engine's state. One that has started is up once canaries
// come through it.
func (i *ids) changed(s snort.State) {
	i.mu.Lock()
	i.pid = s.PID
	i.mu.Unlock()
	i.set(s.PID, false)
	if s.Phase == snort.PhaseUp {
		return
	}
	i.log.Info("ids", "state", s.Phase, "detail", s.Detail)
	i.journal.note("ids", fmt.Sprintf("engine %s: %s", s.Phase, s.Detail))
}

// set tells the kernel that the engine's process pid is up or not, or returns
// false if that is not the one that runs.
func (i *ids) set(pid int, up bool) bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	if pid != i.pid {
		return false
	}
	i.up = up
	cfg := i.now().cfg
	if err := i.dp.SetSettings(settingsFor(cfg, i.stateFor(cfg))); err != nil {
		i.log.Error("cannot tell the kernel the state of the IDS", "error", err)
	}
	return true
}

// tell writes the kernel's settings by a configuration and the engine's state.
func (i *ids) tell(cfg *config.Config) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.dp.SetSettings(settingsFor(cfg, i.stateFor(cfg)))
}

// stateFor is what the kernel is to know of the engine; the caller holds the lock.
func (i *ids) stateFor(cfg *config.Config) loader.IDSState {
	switch {
	case i.up:
		return loader.IDSUp
	case cfg.Failure.IDS == "open":
		return loader.IDSDownOpen
	}
	return loader.IDSDownClosed
}

// isUp says whether traffic goes through the engine.
func (i *ids) isUp() bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.up
}

// reload has the engine read its rules again.
func (i *ids) reload(ctx context.Context) error {
	i.mu.Lock()
	engine := i.own
	i.mu.Unlock()
	if engine == nil {
		return nil // it reads them when it starts
	}
	return engine.Reload(ctx)
}

// sameIDS says whether the engine need not be started anew for a configuration.
func sameIDS(a, b *config.Config) bool {
	if runsEngine(a) != runsEngine(b) || idsPorts(a) != idsPorts(b) {
		return false
	}
	if runsEngine(a) {
		return reflect.DeepEqual(engineConfig(a, nil), engineConfig(b, nil))
	}
	return reflect.DeepEqual(externalConfig(a, nil), externalConfig(b, nil))
}

// status returns the engine's state, the zero State where there is none.
func (i *ids) status() snort.State {
	i.mu.Lock()
	engine := i.engine
	i.mu.Unlock()
	if engine == nil {
		return snort.State{}
	}
	state := engine.State()
	i.mu.Lock()
	defer i.mu.Unlock()
	if state.Phase == snort.PhaseUp && !i.up {
		state.Phase, state.Detail = snort.PhaseStarting, "no canary has come through it yet"
	}
	return state
}
