package app

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/vmgate/vmgate/internal/api"
	"github.com/vmgate/vmgate/internal/event"
	"github.com/vmgate/vmgate/pkg/loader"
	"github.com/vmgate/vmgate/pkg/verdict"
	"github.com/vmgate/vmgate/pkg/vmi"
)

// backend answers the calls of the API.
type backend struct{ *App }

var _ api.Backend = backend{}

// Status implements api.Backend.
func (b backend) Status(context.Context) (api.Status, error) {
	s, c := b.state.Load(), b.keeper.last()
	b.mu.Lock()
	defer b.mu.Unlock()
	status := api.Status{
		Version: b.opt.Version, PID: os.Getpid(), Started: b.started,
		Config: b.opt.ConfigPath, Loaded: b.loaded, LastError: b.lastError,
		Enforcement: s.cfg.Enforcement,
		IDS:         b.idsStatus(s),
		VMs:         len(s.cfg.VMs), Flows: c.flows, Pending: b.holder.depth(),
		Failure: map[string]string{
			"daemon": s.cfg.Failure.Daemon, "ids": s.cfg.Failure.IDS,
			"introspection": s.cfg.Failure.Introspection, "no-owner": s.cfg.Failure.NoOwner,
		},
	}
	for _, port := range b.dp.Ports() {
		if port.Kind == loader.PortVNIC {
			status.Segments = append(status.Segments, segmentStatus(s, port))
		}
	}
	for _, n := range b.counters() {
		status.Counters = append(status.Counters, api.Counter{Segment: n.segment, Reason: n.Reason.String(), Packets: n.Packets, Bytes: n.Bytes})
	}
	return status, nil
}

func segmentStatus(s *state, port loader.PortState) api.SegmentStatus {
	status := api.SegmentStatus{VNIC: port.Device, State: "attached", Datapath: string(port.Datapath)}
	if seg := s.inv.segments[port.Segment]; seg != nil {
		status.Name = seg.Name
	}
	switch {
	case port.Attached && port.Fallback != nil:
		status.Detail = "auto: " + port.Fallback.Error()
	case port.Attached:
	case errors.Is(port.Err, loader.ErrNoDevice):
		status.State, status.Detail = "missing", "attached when the vNIC appears"
	default:
		status.State, status.Detail = "failed", port.Err.Error()
	}
	return status
}

func (b backend) idsStatus(s *state) api.IDSStatus {
	if s.cfg.IDS.Engine == "" {
		return api.IDSStatus{State: "none"}
	}
	st := b.ids.status()
	return api.IDSStatus{
		Engine: s.cfg.IDS.Engine, State: string(st.Phase), PID: st.PID, Since: st.Since,
		Restarts: st.Restarts, Detail: st.Detail,
	}
}

// VMs implements api.Backend.
func (b backend) VMs(context.Context) ([]api.VM, error) {
	s, c := b.state.Load(), b.keeper.last()
	var vms []api.VM
	for _, n := range s.inv.byID {
		standing, _ := b.book.JudgeVM(n.name)
		vm := api.VM{
			ID: n.name, Name: n.name, Segment: n.segment.Name, Router: n.router != nil, Memory: "none",
			Verdict: standing.Verdict.String(), Cause: standing.Cause.String(), Flows: c.flowsOf[n.id],
		}
		if n.vm != nil && n.vm.Name != "" {
			vm.Name = n.vm.Name
		}
		for _, mac := range n.macs {
			vm.MACs = append(vm.MACs, mac.String())
		}
		vm.Addresses = b.addressesOf(n)
		if n.learns() {
			vm.Learned = b.learnedOf(n, vm.Addresses)
		}
		if g := s.guests[n.name]; g != nil {
			vm.Memory, vm.OS, vm.Detail = g.Status()
		}
		vms = append(vms, vm)
	}
	slices.SortFunc(vms, func(x, y api.VM) int { return strings.Compare(x.ID, y.ID) })
	return vms, nil
}

// addressesOf lists what a node may use, with what it has learned.
func (b backend) addressesOf(n *node) []string {
	var addrs []string
	entries := b.dp.Addrs()
	for key := range entries.All() {
		if key.VM != n.id {
			continue
		}
		if isHost(key.Prefix) {
			addrs = append(addrs, key.Prefix.Addr().String())
		} else {
			addrs = append(addrs, key.Prefix.String())
		}
	}
	slices.Sort(addrs)
	return addrs
}

// learnedOf says where a node's addresses are known from.
func (b backend) learnedOf(n *node, addrs []string) (learned []api.Learned) {
	for _, text := range addrs {
		one := api.Learned{Address: text, From: "claim"}
		if addr, err := netip.ParseAddr(text); err == nil {
			if l, ok := b.leases.table.Of(addr); ok && l.VM == n.name {
				one.From, one.Server, one.Until = "lease", l.Server, &l.Until
			}
		}
		learned = append(learned, one)
	}
	return learned
}

// guestOf finds the introspection of a VM.
func (b backend) guestOf(vm string) (*guest, vmi.Guest, error) {
	s := b.state.Load()
	n := s.inv.byName[vm]
	if n == nil || n.vm == nil {
		return nil, nil, fmt.Errorf("%w: there is no VM %q in the inventory", api.ErrNotFound, vm)
	}
	g := s.guests[vm]
	if g == nil {
		return nil, nil, fmt.Errorf("%w: no memory is declared for VM %s (vms: memory)", api.ErrUnavailable, vm)
	}
	open, err := g.Current()
	if err != nil {
		return nil, nil, fmt.Errorf("%w: %w", api.ErrUnavailable, err)
	}
	return g, open, nil
}

// Processes implements api.Backend.
func (b backend) Processes(ctx context.Context, vm string) ([]api.Process, error) {
	g, open, err := b.guestOf(vm)
	if err != nil {
		return nil, err
	}
	found, err := open.Processes(ctx)
	if err != nil {
		g.Noticed(err)
		return nil, fmt.Errorf("%w: cannot list the processes of %s: %w", api.ErrUnavailable, vm, err)
	}
	processes := make([]api.Process, 0, len(found))
	for _, p := range found {
		standing, _ := b.book.JudgeProcess(describe(vm, p))
		processes = append(processes, api.Process{Process: p, Verdict: standing.Verdict.String(), Cause: standing.Cause.String()})
	}
	return processes, nil
}

// Sockets implements api.Backend.
func (b backend) Sockets(ctx context.Context, vm string) ([]vmi.Socket, error) {
	g, open, err := b.guestOf(vm)
	if err != nil {
		return nil, err
	}
	sockets, err := open.Sockets(ctx)
	if err != nil {
		g.Noticed(err)
		return nil, fmt.Errorf("%w: cannot list the sockets of %s: %w", api.ErrUnavailable, vm, err)
	}
	return sockets, nil
}

// Owner implements api.Backend.
func (b backend) Owner(ctx context.Context, q api.OwnerQuery) (vmi.Answer, error) {
	proto, err := api.ParseProto(q.Proto)
	if err != nil {
		return vmi.Answer{}, err
	}
	g, _, err := b.guestOf(q.VM)
	if err != nil {
		return vmi.Answer{}, err
	}
	answer, err := g.ask(ctx, vmi.Query{Proto: proto, Local: netip.AddrPortFrom(q.Addr, q.Port.Port), Remote: q.Remote, NetNS: q.NetNS})
	switch {
	case errors.Is(err, vmi.ErrNoNamespace):
		return vmi.Answer{}, fmt.Errorf("%w: %w", api.ErrNotFound, err)
	case err != nil:
		return vmi.Answer{}, fmt.Errorf("%w: %w", api.ErrUnavailable, err)
	}
	return answer, nil
}

// Fingerprint implements api.Backend.
func (b backend) Fingerprint(ctx context.Context, vm string, pid uint32) (vmi.Fingerprint, error) {
	g, open, err := b.guestOf(vm)
	if err != nil {
		return vmi.Fingerprint{}, err
	}
	p, err := b.process(ctx, vm, pid)
	if err != nil {
		return vmi.Fingerprint{}, err
	}
	f, err := open.Fingerprint(ctx, p.PID, p.Start)
	switch {
	case errors.Is(err, vmi.ErrNoProcess):
		return vmi.Fingerprint{}, fmt.Errorf("%w: %w", api.ErrNotFound, err)
	case err != nil:
		g.Noticed(err)
		return vmi.Fingerprint{}, fmt.Errorf("%w: cannot read the program of %s in %s: %w", api.ErrUnavailable, p.Name, vm, err)
	}
	return f, nil
}

// Findings implements api.Backend.
func (b backend) Findings(ctx context.Context, vm string) ([]vmi.Finding, error) {
	g, open, err := b.guestOf(vm)
	if err != nil {
		return nil, err
	}
	findings, err := open.Findings(ctx)
	if err != nil {
		g.Noticed(err)
		return nil, fmt.Errorf("%w: cannot compare the views of %s: %w", api.ErrUnavailable, vm, err)
	}
	return findings, nil
}

// Modules implements api.Backend.
func (b backend) Modules(ctx context.Context, vm string) ([]vmi.Module, error) {
	g, open, err := b.guestOf(vm)
	if err != nil {
		return nil, err
	}
	modules, err := open.Modules(ctx)
	if err != nil {
		g.Noticed(err)
		return nil, fmt.Errorf("%w: cannot list the kernel modules of %s: %w", api.ErrUnavailable, vm, err)
	}
	return modules, nil
}

// Measure implements api.Backend.
func (b backend) Measure(ctx context.Context, m api.Measure) error {
	if n := b.state.Load().inv.byName[m.VM]; n == nil || n.vm == nil {
		return fmt.Errorf("%w: there is no VM %q in the inventory", api.ErrNotFound, m.VM)
	}
	v, ok := map[string]verdict.Verdict{"isolate": verdict.Drop, "inspect": verdict.Check, "release": verdict.Forward}[m.Action]
	if !ok {
		return fmt.Errorf("%w: unknown measure %q: want isolate, inspect or release", api.ErrInvalid, m.Action)
	}
	evidence := verdict.Evidence{
		Kind: verdict.EvidenceOperator, Observed: time.Now(), VM: m.VM, Verdict: v, Cause: verdict.CauseOperator,
		Detail: m.Action + " by " + m.By,
	}
	if m.PID != 0 {
		p, err := b.process(ctx, m.VM, m.PID)
		if err != nil {
			return err
		}
		evidence.Process = &p
	}
	if v == verdict.Check && b.isolated(m.VM, evidence.Process) {
		return fmt.Errorf("%w: it is isolated, which is stricter: release it first", api.ErrInvalid)
	}
	if v == verdict.Forward && evidence.Process == nil {
		b.effects.tally.Forget(m.VM) // what it was released from does not come back by itself
	}
	b.journal.write(event.Event{Type: "operator", SrcVM: m.VM, SrcProcess: evidence.Process, Message: evidence.Detail})
	// Stored before the operator is told that it is done: it must outlive a crash.
	return errors.Join(b.effects.observe(evidence), b.save())
}

// isolated says whether a VM, or a process of it, is dropped already.
func (b backend) isolated(vm string, p *verdict.Process) bool {
	standing, _ := b.book.JudgeVM(vm)
	if p != nil {
		standing, _ = b.book.JudgeProcess(*p)
	}
	return standing.Verdict == verdict.Drop
}

// process finds a running process of a VM. One that has a number is known also
// while the VM's memory cannot be read: its measures can still be lifted.
func (b backend) process(ctx context.Context, vm string, pid uint32) (verdict.Process, error) {
	g, open, err := b.guestOf(vm)
	if err == nil {
		var found []vmi.Process
		if found, err = open.Processes(ctx); err != nil {
			g.Noticed(err)
			err = fmt.Errorf("%w: cannot list the processes of %s: %w", api.ErrUnavailable, vm, err)
		}
		for _, p := range found {
			if p.PID == pid {
				return describe(vm, p), nil
			}
		}
	}
	for _, p := range b.owners.all() {
		if p.VM == vm && p.PID == pid {
			return p, nil
		}
	}
	if err != nil {
		return verdict.Process{}, err
	}
	return verdict.Process{}, fmt.Errorf("%w: no process of %s has pid %d", api.ErrNotFound, vm, pid)
}

// Monitor implements api.Backend.
func (b backend) Monitor(ctx context.Context) (<-chan event.Event, error) {
	return b.journal.hub.Subscribe(ctx), nil
}

// age is how long ago a monotonic time was; nothing lies in the future.
func age(then uint64) time.Duration {
	now := loader.Now()
	if then == 0 || then > now {
		return 0
	}
	return time.Duration(now - then)
}
