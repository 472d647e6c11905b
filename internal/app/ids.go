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

	mu     sync.Mutex
	engine *snort.Engine // nil while none runs
	state  loader.IDSState
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
	return engine.Run(ctx, i.changed, i.alert)
}

// changed follows the engine's state into the kernel's settings.
func (i *ids) changed(s snort.State) {
	i.log.Info("ids", "state", s.Phase, "detail", s.Detail)
	i.journal.note("ids", fmt.Sprintf("engine %s: %s", s.Phase, s.Detail))
	i.set(s.Phase == snort.PhaseUp)
}

// set writes the settings for an engine that is up or down.
func (i *ids) set(up bool) {
	i.mu.Lock()
	defer i.mu.Unlock()
	cfg := i.now().cfg
	switch {
	case up:
		i.state = loader.IDSUp
	case cfg.Failure.IDS == "open":
		i.state = loader.IDSDownOpen
	default:
		i.state = loader.IDSDownClosed
	}
	if err := i.dp.SetSettings(settingsFor(cfg, i.state)); err != nil {
		i.log.Error("cannot tell the kernel the state of the IDS", "error", err)
	}
}

// current is the state as the kernel's settings know it.
func (i *ids) current() loader.IDSState {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.state
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
	return engine.State()
}

// alert makes an alert evidence against the process that sent the packet.
func (i *ids) alert(a snort.Alert) {
	s := i.now()
	n := s.sender(a)
	if n == nil {
		i.journal.alert(a, "", nil)
		return
	}
	process, key, err := i.culprit(s, n, a)
	i.journal.alert(a, n.name, process)
	if process == nil {
		i.log.Warn("alert could not be traced to a process", "vm", n.name, "sid", a.SID, "alert", a.Message, "error", err)
		i.endFlow(s, key, a)
		return
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
	if err == nil && ok {
		flow.Verdict, flow.Cause = uint32(verdict.Drop), uint32(verdict.CauseAlert)
		flow.Expires = loader.Now() + uint64(10*time.Minute)
		err = i.dp.PutFlow(key, flow)
	}
	if err != nil {
		i.log.Error("cannot end a flow with an alert", "flow", key, "error", err)
	}
}
