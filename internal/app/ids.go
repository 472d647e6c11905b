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
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/vmgate/vmgate/internal/config"
	"github.com/vmgate/vmgate/pkg/loader"
	"github.com/vmgate/vmgate/pkg/snort"
	"github.com/vmgate/vmgate/pkg/verdict"
)

// ids runs the inline engine and turns its alerts into evidence.
type ids struct {
	dp      *loader.Dataplane
	effects *effects
	journal *journal
	log     *slog.Logger
	now     func() *state
	repeats repeats

	mu     sync.Mutex
	engine *snort.Engine // nil while none runs
	pid    int           // of the process that is to be proven or was; 0 for none
	up     bool          // canaries come through it
}

// idsPorts names the port pair of a gateway; its engine has a network namespace
// of its own, so that several gateways of one machine stay apart.
func idsPorts(cfg *config.Config) loader.IDSPorts {
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
		Rules: cfg.IDS.Rules, HomeNets: home, MTU: cfg.IDS.MTU,
		Dir: idsDir(cfg),
		Log: log,
	}
}

// run keeps the engine running until ctx is done. What is to be checked while
// it is not up is dropped, or forwarded where the operator chose so.
func (i *ids) run(ctx context.Context, cfg *config.Config) error {
	engine, err := snort.New(engineConfig(cfg, i.log))
	if err != nil {
		return err
	}
	i.mu.Lock()
	i.engine = engine
	i.mu.Unlock()
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return engine.Run(ctx, i.changed, i.alert) })
	group.Go(func() error { i.watchEngine(ctx, cfg, engine); return nil })
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
	engine := i.engine
	i.mu.Unlock()
	if engine == nil {
		return nil // it reads them when it starts
	}
	return engine.Reload(ctx)
}

// sameIDS says whether the engine need not be started anew for a configuration.
func sameIDS(a, b *config.Config) bool {
	return reflect.DeepEqual(engineConfig(a, nil), engineConfig(b, nil))
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

// alert makes an alert evidence against the process that sent the packet.
func (i *ids) alert(a snort.Alert) {
	s := i.now()
	n := s.sender(a)
	if n == nil {
		i.record(a, "", nil)
		return
	}
	process, key, err := i.culprit(s, n, a)
	told := i.record(a, n.name, process)
	if process == nil {
		if told {
			i.log.Warn("alert could not be traced to a process", "vm", n.name, "sid", a.SID, "alert", a.Message, "error", err)
		}
		i.endFlow(s, key, a)
		return
	}
	if !told && i.stands(process, sentence(s.cfg.IDS, a.Action)) {
		return // it says nothing new
	}
	evidence := verdict.Evidence{
		Kind: verdict.EvidenceAlert, Observed: a.Time, VM: n.name, Process: process,
		Verdict: sentence(s.cfg.IDS, a.Action), Cause: verdict.CauseAlert,
		Detail: fmt.Sprintf("%s [%d:%d:%d] %s", a.Engine, a.GID, a.SID, a.Rev, a.Message),
	}
	if err := i.effects.observe(evidence); err != nil {
		i.log.Error("cannot enforce the verdict on a process", "vm", n.name, "pid", process.PID, "error", err)
	}
}

// record tells of an alert, unless it has been told often enough.
func (i *ids) record(a snort.Alert, vm string, p *verdict.Process) (told bool) {
	if i.repeats.enough(a, vm, p) {
		return false
	}
	i.journal.alert(a, vm, p, 0)
	return true
}

// tellRepeats tells each second how many alerts were not told.
func (i *ids) tellRepeats(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
		case <-tick.C:
		}
		for _, r := range i.repeats.next() {
			i.journal.alert(r.alert, r.vm, r.process, r.more())
		}
		if ctx.Err() != nil {
			return
		}
	}
}

// stands says whether a verdict at least as strict stands on a process already.
func (i *ids) stands(p *verdict.Process, v verdict.Verdict) bool {
	_, standing, known := i.effects.owners.standingOf(p.Instance)
	return known && standing.Verdict >= v
}

// sender finds the VM that sent the packet of an alert: the one that has both its
// MAC and its address. What an engine says of the inside of a tunnel was chosen by
// whoever built the packet, and convicts nobody.
func (s *state) sender(a snort.Alert) *node {
	n := s.inv.byAddress(a.Src.Addr())
	if len(a.SrcMAC) != 0 && s.inv.byHardware(a.SrcMAC) != n {
		return nil
	}
	if n == nil || n.vm == nil {
		return nil
	}
	return n
}

// sentence is the verdict that an alert asks for.
func sentence(cfg config.IDS, action snort.Action) verdict.Verdict {
	if slices.Contains(cfg.Convict, string(action)) {
		return verdict.Drop
	}
	return verdict.Check
}

// culprit finds the process that sent the packet: the owner that the flow
// bears, or else whoever holds the port now.
func (i *ids) culprit(s *state, n *node, a snort.Alert) (*verdict.Process, loader.FlowKey, error) {
	key, from := loader.NewFlowKey(a.Proto, a.Src, a.Dst, a.VLAN, 0, uint8(n.segment.group))
	flow, ok, err := i.dp.Flow(key)
	if err == nil && ok {
		if p, _, known := i.effects.owners.get(flow.Dir[from].Owner); known {
			return &p, key, nil
		}
	}
	if !n.hasMemory() {
		return nil, key, errors.New("the VM's memory is not declared")
	}
	if !i.repeats.mayTrace(n.name) {
		return nil, key, errors.New("too many alerts of the VM in this second")
	}
	ctx, cancel := context.WithTimeout(context.Background(), s.cfg.Decision.Deadline)
	defer cancel()
	owner := s.guests[n.name].owner(ctx, a.Proto, a.Src, a.Dst)
	if owner.State != verdict.OwnerKnown {
		return nil, key, errors.New(owner.Detail)
	}
	return &owner.Processes[0], key, nil
}

// endFlow drops a flow whose process is not known: the alert is at least about
// the flow.
func (i *ids) endFlow(s *state, key loader.FlowKey, a snort.Alert) {
	if sentence(s.cfg.IDS, a.Action) != verdict.Drop {
		return
	}
	flow, ok, err := i.dp.Flow(key)
	if err == nil && ok && flow.Verdict != uint32(verdict.Drop) {
		flow.Verdict, flow.Cause = uint32(verdict.Drop), uint32(verdict.CauseAlert)
		flow.Expires = loader.Now() + uint64(10*time.Minute)
		err = i.dp.PutFlow(key, flow)
	}
	if err != nil {
		i.log.Error("cannot end a flow with an alert", "flow", key, "error", err)
	}
}
