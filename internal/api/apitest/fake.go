// Package apitest has a Backend in memory, for tests of what talks to one.
package apitest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/vmgate/vmgate/internal/api"
	"github.com/vmgate/vmgate/internal/event"
	"github.com/vmgate/vmgate/pkg/vmi"
)

// Fake is a Backend over data in memory. It knows the VMs app1 and web1, whose
// memory it reads, dark, whose memory fails, and the router gw. A configuration text that
// contains "bogus" is wrong, one that contains "panic" makes it panic.
type Fake struct {
	mu       sync.Mutex
	vms      []api.VM
	verdicts []api.PortVerdict
	lists    []api.ListEntry
	applied  string
	calls    []string
	nextID   int

	// EndStream makes Monitor end the stream after its events, as a daemon that
	// stops does.
	EndStream bool
	// Flood makes Monitor send events without end.
	Flood bool
}

var _ api.Backend = (*Fake)(nil)

// New returns a fake with its data.
func New() *Fake {
	return &Fake{vms: vms(), verdicts: verdicts(), lists: lists(), nextID: 3}
}

// Calls returns what was changed through the fake, and by whom, a line each.
func (f *Fake) Calls() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.calls)
}

func (f *Fake) called(format string, args ...any) {
	f.calls = append(f.calls, fmt.Sprintf(format, args...))
}

// Status implements api.Backend.
func (f *Fake) Status(context.Context) (api.Status, error) { return status(), nil }

// VMs implements api.Backend.
func (f *Fake) VMs(context.Context) ([]api.VM, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.vms), nil
}

// vm finds a VM; the caller holds the lock.
func (f *Fake) vm(id string) (*api.VM, error) {
	for i := range f.vms {
		if f.vms[i].ID == id {
			return &f.vms[i], nil
		}
	}
	return nil, fmt.Errorf("cannot find VM %q: %w", id, api.ErrNotFound)
}

// readable says whether the VM's memory can be read.
func (f *Fake) readable(id string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	vm, err := f.vm(id)
	if err == nil && vm.Memory != "ready" {
		return fmt.Errorf("cannot look into VM %q: introspection %w: %w", id, api.ErrUnavailable, vmi.ErrNotReady)
	}
	return err
}

// Processes implements api.Backend.
func (f *Fake) Processes(_ context.Context, vm string) ([]api.Process, error) {
	if err := f.readable(vm); err != nil {
		return nil, err
	}
	return processes(), nil
}

// Sockets implements api.Backend.
func (f *Fake) Sockets(_ context.Context, vm string) ([]vmi.Socket, error) {
	if err := f.readable(vm); err != nil {
		return nil, err
	}
	return sockets(), nil
}

// Owner implements api.Backend.
func (f *Fake) Owner(_ context.Context, q api.OwnerQuery) (vmi.Answer, error) {
	if err := f.readable(q.VM); err != nil {
		return vmi.Answer{}, err
	}
	if q.NetNS == 7 {
		return vmi.Answer{}, fmt.Errorf("%w: %w: 7", api.ErrNotFound, vmi.ErrNoNamespace)
	}
	return answerFor(q), nil
}

// Fingerprint implements api.Backend.
func (f *Fake) Fingerprint(_ context.Context, vm string, pid uint32) (vmi.Fingerprint, error) {
	if err := f.readable(vm); err != nil {
		return vmi.Fingerprint{}, err
	}
	if pid != 120 {
		return vmi.Fingerprint{}, fmt.Errorf("%w: process %d", api.ErrNotFound, pid)
	}
	return vmi.Fingerprint{PID: 120, Start: 5e9, Path: "/usr/bin/curl", BuildID: "c0ffee", SHA256: "ab12", Pages: 3,
		Resident: []vmi.PageRun{{First: 1, Count: 2}}}, nil
}

// Findings implements api.Backend.
func (f *Fake) Findings(_ context.Context, vm string) ([]vmi.Finding, error) {
	if err := f.readable(vm); err != nil {
		return nil, err
	}
	return findings(), nil
}

// Modules implements api.Backend.
func (f *Fake) Modules(_ context.Context, vm string) ([]vmi.Module, error) {
	if err := f.readable(vm); err != nil {
		return nil, err
	}
	return modules(), nil
}

// Verdicts implements api.Backend.
func (f *Fake) Verdicts(context.Context) ([]api.PortVerdict, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.verdicts), nil
}

// SetVerdict implements api.Backend.
func (f *Fake) SetVerdict(_ context.Context, change api.VerdictChange) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, err := f.vm(change.VM); err != nil {
		return err
	}
	v := api.PortVerdict{Port: change.Port, Verdict: change.Verdict, Cause: "operator", Observed: noon}
	if change.For != 0 {
		expires := noon.Add(change.For)
		v.Expires = &expires
	}
	f.verdicts = append(f.verdicts, v)
	f.called("set %s/%s/%d %s for %v by %s", change.VM, change.Proto, change.Port.Port, change.Verdict, change.For, change.By)
	return nil
}

// DeleteVerdict implements api.Backend.
func (f *Fake) DeleteVerdict(_ context.Context, port api.Port) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	before := len(f.verdicts)
	f.verdicts = slices.DeleteFunc(f.verdicts, func(v api.PortVerdict) bool { return v.Port == port })
	if len(f.verdicts) == before {
		return fmt.Errorf("cannot delete the verdict of %s/%s/%d: %w", port.VM, port.Proto, port.Port, api.ErrNotFound)
	}
	return nil
}

// Flows implements api.Backend.
func (f *Fake) Flows(context.Context) ([]api.Flow, error) { return flows(), nil }

// Lists implements api.Backend.
func (f *Fake) Lists(context.Context) ([]api.ListEntry, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.lists), nil
}

// AddListEntry implements api.Backend.
func (f *Fake) AddListEntry(ctx context.Context, entry api.ListEntry) error {
	return f.ImportListEntries(ctx, []api.ListEntry{entry})
}

// ImportListEntries implements api.Backend.
func (f *Fake) ImportListEntries(_ context.Context, entries []api.ListEntry) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, e := range entries {
		if e.VM == "" {
			continue
		}
		if _, err := f.vm(e.VM); err != nil {
			return err
		}
	}
	for _, e := range entries {
		e.ID, e.Added = fmt.Sprintf("e%d", f.nextID), noon
		f.nextID++
		f.lists = append(f.lists, e)
		f.called("listed %s%s%s on %s as %s", e.Name, e.Path, e.Fingerprint, e.List, e.Origin)
	}
	return nil
}

// RemoveListEntry implements api.Backend.
func (f *Fake) RemoveListEntry(_ context.Context, id string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	before := len(f.lists)
	f.lists = slices.DeleteFunc(f.lists, func(e api.ListEntry) bool { return e.ID == id })
	if len(f.lists) == before {
		return fmt.Errorf("cannot remove entry %q: %w", id, api.ErrNotFound)
	}
	return nil
}

// Policy implements api.Backend.
func (f *Fake) Policy(context.Context) (api.Policy, error) { return policy(), nil }

// CheckConfig implements api.Backend.
func (f *Fake) CheckConfig(_ context.Context, text []byte) (api.Changes, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.changes(text)
}

// changes compares a text with the one in force; the caller holds the lock.
func (f *Fake) changes(text []byte) (api.Changes, error) {
	switch {
	case strings.Contains(string(text), "panic"):
		panic("as the test wants")
	case strings.Contains(string(text), "bogus"):
		return api.Changes{}, fmt.Errorf("%w configuration:\ngateway.yaml:1:1: unknown key \"bogus\"\n    1 | bogus: 1\n      | ^", api.ErrInvalid)
	case string(text) == f.applied:
		return api.Changes{}, nil
	}
	return api.Changes{Lines: []string{"enforcement: enforce -> monitor", "rule web: added"}}, nil
}

// ApplyConfig implements api.Backend.
func (f *Fake) ApplyConfig(_ context.Context, text []byte) (api.Changes, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	changes, err := f.changes(text)
	if err == nil {
		f.applied = string(text)
		f.called("applied %d bytes", len(text))
	}
	return changes, err
}

// Reload implements api.Backend.
func (f *Fake) Reload(context.Context) (api.Changes, error) {
	return api.Changes{Lines: []string{"rule web: added"}}, nil
}

// IDS implements api.Backend.
func (f *Fake) IDS(context.Context) (api.IDS, error) {
	return api.IDS{
		IDSStatus: status().IDS, Version: "7.0.10", RuleFiles: []string{"/etc/vmgate/rules/vmgate.rules"}, Rules: 12,
		PacketsIn: 1000, PacketsOut: 990, NotBack: 10,
		Engines: []api.IDSEngine{{State: "up", PID: 4242, LastReason: "the engine hangs", CanaryAge: 12 * time.Millisecond, AlertAge: -1, Lines: 40}},
	}, nil
}

// ReloadIDS implements api.Backend.
func (f *Fake) ReloadIDS(context.Context) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.called("ids reload")
	return nil
}

// TestIDS implements api.Backend. Its rules are bad.
func (f *Fake) TestIDS(context.Context) error {
	return fmt.Errorf("%w: suricata refuses its rules: /etc/vmgate/rules/vmgate.rules line 3: no sid", api.ErrInvalid)
}

// Report implements api.Backend.
func (f *Fake) Report(_ context.Context, r api.Report) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if r.VM != "" {
		if _, err := f.vm(r.VM); err != nil {
			return err
		}
	}
	about := fmt.Sprintf("vm %s pid %d file %q", r.VM, r.PID, r.Fingerprint)
	if r.Flow != nil {
		about = fmt.Sprintf("flow %+v", *r.Flow)
	}
	f.called("%s %s for %v by %s (%s): %s", r.Finding, about, r.For, r.Author, r.By, r.Reason)
	return nil
}

// Measure implements api.Backend.
func (f *Fake) Measure(_ context.Context, m api.Measure) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	vm, err := f.vm(m.VM)
	if err != nil {
		return err
	}
	if m.PID != 0 && !slices.ContainsFunc(processes(), func(p api.Process) bool { return p.PID == m.PID }) {
		return fmt.Errorf("cannot find process %d in VM %q: %w", m.PID, m.VM, api.ErrNotFound)
	}
	if m.PID == 0 {
		vm.Verdict = map[string]string{"isolate": "drop", "inspect": "check", "release": "forward"}[m.Action]
		vm.Cause = "operator"
	}
	f.called("%s %s %d by %s", m.Action, m.VM, m.PID, m.By)
	return nil
}

// Explain implements api.Backend.
func (f *Fake) Explain(_ context.Context, t api.Tuple) (api.Explanation, error) {
	if t.Dst == "203.0.113.9" {
		return api.Explanation{}, errors.New("cannot explain: the flow map is gone")
	}
	return explanation(t), nil
}

// Monitor implements api.Backend.
func (f *Fake) Monitor(ctx context.Context) (<-chan event.Event, error) {
	out := make(chan event.Event)
	go func() {
		defer close(out)
		for sent := false; !sent || f.Flood; sent = true {
			for _, e := range events() {
				select {
				case out <- e:
				case <-ctx.Done():
					return
				}
			}
		}
		if !f.EndStream {
			<-ctx.Done()
		}
	}()
	return out, nil
}

var noon = time.Date(2026, time.March, 1, 12, 0, 0, 0, time.UTC)
