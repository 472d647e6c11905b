package app

import (
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/vmgate/vmgate/pkg/loader"
	"github.com/vmgate/vmgate/pkg/verdict"
)

// ownerGrace: an owner's number that nothing has used for this long, and that
// no flow bears, is given again.
const ownerGrace = 30 * time.Second

// owners gives processes their small numbers, by which flows bear them, and
// keeps the verdict of each in the kernel's owners map: one write there changes
// what happens to all flows of the process.
type owners struct {
	dp   *loader.Dataplane
	log  *slog.Logger
	vmID func(name string) uint32

	mu         sync.Mutex
	byInstance map[verdict.Instance]*owner
	byID       map[uint32]*owner
	next       uint32
}

// owner is one process with a number.
type owner struct {
	id       uint32
	process  verdict.Process
	standing verdict.Standing
	used     time.Time
}

// adoptOwners takes over the numbers that an earlier daemon gave.
func adoptOwners(dp *loader.Dataplane, inv *inventory, vmID func(string) uint32, log *slog.Logger) (*owners, error) {
	o := &owners{dp: dp, log: log, vmID: vmID, byInstance: map[verdict.Instance]*owner{}, byID: map[uint32]*owner{}, next: 1}
	entries := dp.Owners()
	for id, entry := range entries.All() {
		n := inv.byID[entry.VM]
		if n == nil {
			continue // flows that bear it end as their VM is no longer known
		}
		process := verdict.Process{
			Instance: verdict.Instance{VM: n.name, PID: entry.PID, Start: entry.StartTime},
			Name:     entry.Comm,
		}
		own := &owner{
			id:       id,
			process:  process,
			standing: verdict.Standing{Verdict: verdict.Verdict(entry.Verdict), Cause: verdict.Cause(entry.Cause)},
			used:     time.Now(),
		}
		o.byInstance[process.Instance], o.byID[id] = own, own
	}
	return o, entries.Err()
}

// set gives the process a number if it has none, and makes the standing its
// verdict in the kernel. It returns the number.
func (o *owners) set(p verdict.Process, standing verdict.Standing) (uint32, error) {
	if standing.Verdict == verdict.Undecided {
		standing.Verdict = verdict.Forward // nothing stands against it
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	own := o.byInstance[p.Instance]
	if own == nil {
		id, err := o.free()
		if err != nil {
			return 0, err
		}
		own = &owner{id: id}
	}
	own.used = time.Now()
	if own.standing != standing || own.process.Name != p.Name {
		entry := loader.Owner{
			Verdict:   uint32(standing.Verdict),
			Cause:     uint32(standing.Cause),
			VM:        o.vmID(p.VM),
			PID:       p.PID,
			StartTime: p.Start,
			Comm:      p.Name,
		}
		if err := o.dp.SetOwner(own.id, entry); err != nil {
			return 0, fmt.Errorf("cannot write the verdict on %s pid %d of %s: %w", p.Name, p.PID, p.VM, err)
		}
	}
	own.process, own.standing = p, standing
	o.byInstance[p.Instance], o.byID[own.id] = own, own
	return own.id, nil
}

// free finds a number that no process has; the caller holds the lock.
func (o *owners) free() (uint32, error) {
	for range loader.MaxOwners - 1 {
		id := o.next
		if o.next++; o.next == loader.MaxOwners {
			o.next = 1
		}
		if o.byID[id] == nil {
			return id, nil
		}
	}
	return 0, fmt.Errorf("all %d owner numbers are borne by flows", loader.MaxOwners-1)
}

// get returns the process behind a number.
func (o *owners) get(id uint32) (verdict.Process, verdict.Standing, bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	own := o.byID[id]
	if own == nil {
		return verdict.Process{}, verdict.Standing{}, false
	}
	return own.process, own.standing, true
}

// standingOf returns the number and the verdict of an instance, if it has one.
func (o *owners) standingOf(i verdict.Instance) (uint32, verdict.Standing, bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	own := o.byInstance[i]
	if own == nil {
		return 0, verdict.Standing{}, false
	}
	return own.id, own.standing, true
}

// all lists the processes that have numbers.
func (o *owners) all() []verdict.Process {
	o.mu.Lock()
	defer o.mu.Unlock()
	processes := make([]verdict.Process, 0, len(o.byID))
	for _, own := range o.byID {
		processes = append(processes, own.process)
	}
	return processes
}

// recycle frees the numbers that no flow or port bears any more.
func (o *owners) recycle(borne map[uint32]bool) error {
	o.mu.Lock()
	defer o.mu.Unlock()
	for id, own := range o.byID {
		if borne[id] || time.Since(own.used) < ownerGrace {
			continue
		}
		if err := o.dp.SetOwner(id, loader.Owner{}); err != nil {
			return fmt.Errorf("cannot free owner number %d: %w", id, err)
		}
		delete(o.byID, id)
		delete(o.byInstance, own.process.Instance)
	}
	return nil
}
