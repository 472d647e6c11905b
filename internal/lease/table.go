package lease

import (
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// MaxPerVM is how many leases a VM may have at a time: a guest that asks under many
// names must not get a server's whole pool.
const MaxPerVM = 16

// Lease is an address that a VM has until a time, by the word of a server.
type Lease struct {
	VM      string     `json:"vm"`
	Segment string     `json:"segment"` // where the VM was
	Addr    netip.Addr `json:"addr"`
	MAC     [6]byte    `json:"mac"` // that asked for it
	Server  string     `json:"server"`
	Until   time.Time  `json:"until"`
}

// Table holds the leases, one for an address. Its methods may be called at the same
// time.
type Table struct {
	mu     sync.Mutex
	leases map[netip.Addr]Lease
}

// NewTable returns a table with the given leases.
func NewTable(leases []Lease) *Table {
	t := &Table{leases: map[netip.Addr]Lease{}}
	for _, l := range leases {
		t.leases[l.Addr] = l
	}
	return t
}

// Grant notes a lease. renewed says that the VM had it already. It refuses the
// address of another VM while that one's lease lasts, and more than MaxPerVM.
func (t *Table) Grant(l Lease, now time.Time) (renewed bool, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	old, known := t.leases[l.Addr]
	if known && old.VM != l.VM && now.Before(old.Until) {
		return false, fmt.Errorf("%s is leased to %s until %s", l.Addr, old.VM, old.Until.Format(time.RFC3339))
	}
	renewed = known && old.VM == l.VM
	if !renewed && t.count(l.VM) >= MaxPerVM {
		return false, fmt.Errorf("%s has %d leases already", l.VM, MaxPerVM)
	}
	t.leases[l.Addr] = l
	return renewed, nil
}

func (t *Table) count(vm string) (n int) {
	for _, l := range t.leases {
		if l.VM == vm {
			n++
		}
	}
	return n
}

// Take removes the leases that ended accepts, and returns them.
func (t *Table) Take(ended func(Lease) bool) (taken []Lease) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for addr, l := range t.leases {
		if ended(l) {
			taken = append(taken, l)
			delete(t.leases, addr)
		}
	}
	return taken
}

// Of returns the lease of an address.
func (t *Table) Of(addr netip.Addr) (Lease, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	l, ok := t.leases[addr]
	return l, ok
}

// All lists the leases by address.
func (t *Table) All() []Lease {
	t.mu.Lock()
	defer t.mu.Unlock()
	all := make([]Lease, 0, len(t.leases))
	for _, l := range t.leases {
		all = append(all, l)
	}
	slices.SortFunc(all, func(a, b Lease) int { return a.Addr.Compare(b.Addr) })
	return all
}
