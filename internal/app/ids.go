package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/vmgate/vmgate/internal/config"
	"github.com/vmgate/vmgate/internal/metrics"
	"github.com/vmgate/vmgate/pkg/loader"
	"github.com/vmgate/vmgate/pkg/snort"
)

// engine inspects what goes through a pair of ports: one that the daemon runs
// (snort.Engine), or one that others run (snort.External).
type engine interface {
	Run(ctx context.Context, onState func(snort.State), onAlert func(snort.Alert)) error
	State() snort.State
}

// ids has engines inspect, and turns their alerts into evidence.
type ids struct {
	dp      *loader.Dataplane
	effects *effects
	journal *journal
	log     *slog.Logger
	now     func() *state
	metrics *metrics.Metrics
	repeats repeats

	mu        sync.Mutex
	instances []*instance // those that run, by their numbers; none while none does
	ruleCount int         // in force
	refused   string      // what the engine said of rules that were last refused
}

// instance is one engine between its ports.
type instance struct {
	*ids
	number int
	ports  loader.IDSPorts
	beats  heartbeats
	engine engine
	own    *snort.Engine // the same, nil where others run it: only our own can be killed and started again

	// Under the lock of ids.
	pid  int       // of the process that is to be proven or was; 0 for none, and for what others run
	up   bool      // canaries come through it
	down time.Time // since when it is not up
	why  string    // it was last not up

	seen [directions]atomic.Int64 // when a canary last came through, Unix nanoseconds
}

// runsEngine says whether the daemon runs the engine itself.
func runsEngine(cfg *config.Config) bool {
	return cfg.IDS.Engine != "" && cfg.IDS.Engine != config.EngineExternal
}

// idsPorts names the port pairs of a gateway: two of its vNICs where others run the
// engine.
func idsPorts(cfg *config.Config) []loader.IDSPorts {
	switch {
	case cfg.IDS.Engine == "":
		return nil
	case !runsEngine(cfg):
		return []loader.IDSPorts{{In: cfg.IDS.Ports.In, Out: cfg.IDS.Ports.Out}}
	}
	pairs := make([]loader.IDSPorts, max(cfg.IDS.Instances, 1))
	for number := range pairs {
		pairs[number] = localPorts(cfg, number)
	}
	return pairs
}

// localPorts names the port pair of an engine that the daemon runs. Each has a network
// namespace of its own, so that several gateways of one machine stay apart, too.
func localPorts(cfg *config.Config, number int) loader.IDSPorts {
	suffix := numbered(number)
	return loader.IDSPorts{
		In: "ids-in" + suffix, Out: "ids-out" + suffix,
		EngineIn: "ids-in" + suffix + "-p", EngineOut: "ids-out" + suffix + "-p",
		NetNS: filepath.Base(cfg.Gateway.Pins) + "-ids" + suffix,
		MTU:   cfg.IDS.MTU,
	}
}

// numbered tells the names of the second engine and of those that follow from the
// first one's.
func numbered(number int) string {
	if number == 0 {
		return ""
	}
	return strconv.Itoa(number)
}

// ensureIDSPorts makes the pairs of the engines that the daemon runs.
func ensureIDSPorts(cfg *config.Config) error {
	if !runsEngine(cfg) {
		return nil
	}
	for _, pair := range idsPorts(cfg) {
		if err := loader.EnsureIDSPorts(pair); err != nil {
			return err
		}
	}
	return nil
}

// removeIDSPorts removes all pairs that a daemon may have made, whatever the
// configuration says now.
func removeIDSPorts(cfg *config.Config) error {
	var errs []error
	for number := range loader.MaxIDS {
		errs = append(errs, loader.RemoveIDSPorts(localPorts(cfg, number)))
	}
	return errors.Join(errs...)
}

// engineConfig derives an engine's configuration from the gateway's.
func engineConfig(cfg *config.Config, number int, log *slog.Logger) snort.Config {
	ports := localPorts(cfg, number)
	var home []netip.Prefix
	for _, s := range cfg.Segments {
		if s.Kind != "wan" {
			home = append(home, s.Subnets...)
		}
	}
	return snort.Config{
		Engine: cfg.IDS.Engine, Binary: cfg.IDS.Binary, User: cfg.IDS.User,
		NetNS: filepath.Join("/run/netns", ports.NetNS),
		In:    ports.EngineIn, Out: ports.EngineOut,
		Rules: append(slices.Clone(cfg.IDS.Rules), heartbeatRules(cfg)), HomeNets: home, Variables: ruleVariables(cfg), MTU: cfg.IDS.MTU,
		Dir: idsDir(cfg) + numbered(number), Threads: cfg.IDS.Threads,
		Log: log,
	}
}

// ruleVariables are the configured ones as the engine's package takes them.
func ruleVariables(cfg *config.Config) []snort.Variable {
	var variables []snort.Variable
	for _, v := range cfg.IDS.Variables {
		as := snort.Variable{Name: v.Name}
		for _, a := range v.Addresses {
			as.Addresses = append(as.Addresses, snort.RuleAddress(a))
		}
		for _, p := range v.Ports {
			as.Ports = append(as.Ports, snort.RulePorts{Not: p.Not, First: p.First, Last: p.Last})
		}
		variables = append(variables, as)
	}
	return variables
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

// newInstance makes an engine of a configuration; own is nil where others run it.
func (i *ids) newInstance(cfg *config.Config, number int) (n *instance, err error) {
	n = &instance{ids: i, number: number, ports: idsPorts(cfg)[number], down: time.Now()}
	log := i.log
	if number > 0 {
		log = log.With("engine", number)
	}
	if !runsEngine(cfg) {
		n.engine, err = snort.NewExternal(externalConfig(cfg, log))
		return n, err
	}
	n.own, err = snort.New(engineConfig(cfg, number, log))
	n.engine = n.own
	return n, err
}

// run keeps the engines running until ctx is done, or takes the alerts of one that
// others run. What is to be checked while its engine is not up is dropped, or
// forwarded where the operator chose so.
func (i *ids) run(ctx context.Context, cfg *config.Config) error {
	var instances []*instance
	for number := range idsPorts(cfg) {
		n, err := i.newInstance(cfg, number)
		if err != nil {
			return err
		}
		instances = append(instances, n)
	}
	i.mu.Lock()
	i.instances, i.ruleCount = instances, countRules(cfg)
	i.mu.Unlock()
	group, ctx := errgroup.WithContext(ctx)
	for _, n := range instances {
		group.Go(func() error { return n.engine.Run(ctx, n.changed, n.alert) })
		group.Go(func() error { n.watchEngine(ctx); return nil })
	}
	group.Go(func() error { i.shareOut(ctx); return nil })
	group.Go(func() error { i.tellRepeats(ctx); return nil })
	err := group.Wait()
	i.stopped()
	return err
}

// stopped tells the kernel that no engine is left.
func (i *ids) stopped() {
	i.mu.Lock()
	i.instances = nil
	i.mu.Unlock()
	if err := i.tell(i.now().cfg); err != nil {
		i.log.Error("cannot tell the kernel that the IDS has ended", "error", err)
	}
}

// alert takes an alert of the instance's engine: of its heartbeat, or evidence.
func (n *instance) alert(a snort.Alert) {
	if !n.beats.take(a) {
		n.ids.alert(a)
	}
}

// changed follows the engine's state. One that has started is up once canaries
// come through it.
func (n *instance) changed(s snort.State) {
	n.mu.Lock()
	n.pid = s.PID
	if s.Phase == snort.PhaseDown && s.Detail != "" {
		n.why = s.Detail
		n.metrics.CountIDS("down")
	}
	n.mu.Unlock()
	n.set(s.PID, false)
	if s.Phase == snort.PhaseUp {
		return
	}
	if s.Phase == snort.PhaseStarting && n.own != nil {
		// Somebody may have removed them, which is what the engine died of.
		if err := loader.EnsureIDSPorts(n.ports); err != nil {
			n.log.Error("the IDS ports are not right", "engine", n.number, "error", err)
		}
	}
	n.log.Info("ids", "engine", n.number, "state", s.Phase, "detail", s.Detail)
	n.note(fmt.Sprintf("%s: %s", s.Phase, s.Detail))
}

// note records what happens to the engine.
func (n *instance) note(what string) { n.journal.note("ids", "engine"+numbered(n.number)+" "+what) }

// set tells the kernel that the engine's process pid is up or not, or returns
// false if that is not the one that runs.
func (n *instance) set(pid int, up bool) bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	if pid != n.pid {
		return false
	}
	if n.up && !up {
		n.down = time.Now()
	}
	n.up = up
	if err := n.tellLocked(n.now().cfg); err != nil {
		n.log.Error("cannot tell the kernel the state of the IDS", "error", err)
	}
	return true
}

// isUp says whether traffic goes through every engine that there is to be.
func (i *ids) isUp() bool {
	i.mu.Lock()
	defer i.mu.Unlock()
	for _, n := range i.instances {
		if !n.up {
			return false
		}
	}
	return len(i.instances) > 0
}

// isUp says whether traffic goes through the engine.
func (n *instance) isUp() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.up
}

// reload has the engines read their rules again.
func (i *ids) reload(ctx context.Context, cfg *config.Config) error {
	i.mu.Lock()
	instances := i.instances
	i.mu.Unlock()
	var errs []error
	for _, n := range instances {
		if n.own != nil { // where none runs, it reads them when it starts
			errs = append(errs, n.own.Reload(ctx))
		}
	}
	err := errors.Join(errs...)
	i.mu.Lock()
	defer i.mu.Unlock()
	if err != nil {
		i.refused = err.Error()
		return err
	}
	i.ruleCount, i.refused = countRules(cfg), ""
	return nil
}

// sameIDS says whether the engines need not be started anew for a configuration.
func sameIDS(a, b *config.Config) bool {
	if runsEngine(a) != runsEngine(b) || !slices.Equal(idsPorts(a), idsPorts(b)) {
		return false
	}
	if runsEngine(a) {
		return reflect.DeepEqual(engineConfig(a, 0, nil), engineConfig(b, 0, nil))
	}
	return reflect.DeepEqual(externalConfig(a, nil), externalConfig(b, nil))
}

// status returns the state of the engines together: that of the first, but for the
// worst phase and the sums. It is the zero State where there is none.
func (i *ids) status() snort.State {
	i.mu.Lock()
	instances := i.instances
	i.mu.Unlock()
	var all snort.State
	for _, n := range instances {
		s := n.status()
		if n.number == 0 {
			all = s
			continue
		}
		all.Restarts += s.Restarts
		all.Lines, all.Malformed, all.Lost, all.Repeated = all.Lines+s.Lines, all.Malformed+s.Malformed, all.Lost+s.Lost, all.Repeated+s.Repeated
		if all.Phase == snort.PhaseUp && s.Phase != snort.PhaseUp {
			all.Phase, all.Since = s.Phase, s.Since
			all.Detail = fmt.Sprintf("engine %d: %s", n.number, s.Detail)
		}
	}
	return all
}

// status returns the engine's state.
func (n *instance) status() snort.State {
	state := n.engine.State()
	if state.Phase == snort.PhaseUp && !n.isUp() {
		state.Phase, state.Detail = snort.PhaseStarting, "no canary has come through it yet"
	}
	return state
}
