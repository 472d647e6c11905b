package app

import (
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/vmgate/vmgate/internal/config"
	"github.com/vmgate/vmgate/internal/event"
	"github.com/vmgate/vmgate/internal/lease"
	"github.com/vmgate/vmgate/internal/store"
	"github.com/vmgate/vmgate/pkg/loader"
)

// leases keeps what declared DHCP servers have leased to VMs whose addresses are
// learned: in the kernel's map of addresses while it lasts, and in the store. A lease
// is a server's word and beats an address that another VM merely claimed; it never
// beats the configuration, or another lease.
type leases struct {
	dp      *loader.Dataplane
	store   *store.Store
	journal *journal
	log     *slog.Logger
	now     func() *state
	table   *lease.Table

	mu    sync.Mutex // one change of the maps at a time
	ended []holding  // whose flows are to end
}

// holding is an address that a VM had.
type holding struct {
	vm   uint32
	addr netip.Addr
}

// openLeases reads the leases that an earlier daemon knew.
func openLeases(dp *loader.Dataplane, st *store.Store, j *journal, log *slog.Logger, now func() *state) (*leases, error) {
	var known []lease.Lease
	if _, err := st.Load("leases", "leases", &known); err != nil {
		return nil, fmt.Errorf("cannot read the stored leases: %w", err)
	}
	return &leases{dp: dp, store: st, journal: j, log: log, now: now, table: lease.NewTable(known)}, nil
}

// answered takes a DHCP server's message.
func (l *leases) answered(e loader.Event) {
	ack, ok := lease.ParseAck(e.DHCP)
	if !ok {
		return
	}
	inv := l.now().inv
	server, n := inv.byID[e.VM], inv.byMAC[config.MAC(ack.Client)]
	if server == nil || n == nil || !n.learns() || !n.hears(e) {
		return
	}
	age := time.Duration(0) // the event may have waited for the daemon
	if now := loader.Now(); now > e.Time {
		age = time.Duration(now - e.Time)
	}
	err := l.bind(inv, n, lease.Lease{
		VM: n.name, Segment: n.segment.Name, Addr: ack.Addr, MAC: ack.Client, Server: server.name,
		Until: time.Now().Add(ack.For - age),
	})
	if err != nil {
		l.log.Warn("lease refused", "vm", n.name, "address", ack.Addr, "server", server.name, "error", err)
		l.tell(n.name, ack.Addr, fmt.Sprintf("lease of %s by %s refused: %v", ack.Addr, server.name, err))
	}
}

// hears says whether a DHCP server's message reaches the node.
func (n *node) hears(e loader.Event) bool {
	const group = 1 // in a MAC's first byte
	outer, inner := e.Key.VLAN()
	return n.segment.group == uint32(e.Key.Group()) && slices.Contains(n.vlans, config.VLAN{Outer: outer, Inner: inner}) &&
		(e.DstMAC[0]&group != 0 || slices.Contains(n.macs, config.MAC(e.DstMAC)))
}

func (l *leases) bind(inv *inventory, n *node, granted lease.Lease) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	if !now.Before(granted.Until) {
		return errors.New("it is over already")
	}
	if other := inv.byAddress(granted.Addr); other != nil {
		return fmt.Errorf("%s is configured for %s", granted.Addr, other.name)
	}
	if old, ok := l.table.Of(granted.Addr); ok && !now.Before(old.Until) {
		l.end(inv, func(one lease.Lease) bool { return one.Addr == granted.Addr })
	}
	renewed, err := l.table.Grant(granted, now)
	if err != nil {
		return err
	}
	if !renewed {
		if err := l.unclaim(inv, n, granted.Addr); err != nil {
			return err
		}
		l.tell(n.name, granted.Addr, fmt.Sprintf("%s leased by %s until %s", granted.Addr, granted.Server, granted.Until.Format(time.RFC3339)))
	}
	return errors.Join(l.put(n, granted), l.save())
}

// unclaim takes an address from whoever claimed it: the VM itself, which now has it
// by a lease, or another, which has it no more.
func (l *leases) unclaim(inv *inventory, n *node, addr netip.Addr) error {
	holder, ok, err := l.dp.Addr(0, addr)
	if err != nil || !ok {
		return err
	}
	err = l.dp.Unlearn(holder.VM, addr)
	if holder.VM == n.id {
		return err
	}
	if other := inv.byID[holder.VM]; other != nil {
		l.tell(other.name, addr, fmt.Sprintf("the VM had claimed %s, which is leased to %s now", addr, n.name))
	}
	l.ended = append(l.ended, holding{holder.VM, addr})
	return errors.Join(err, l.dp.DeleteAddr(addrKey(holder.VM, addr)))
}

func (l *leases) put(n *node, one lease.Lease) error {
	entry := loader.AddrEntry{VM: n.id, Port: n.segment.number, MAC: loader.MAC(one.MAC)}
	return errors.Join(l.dp.PutAddr(addrKey(n.id, one.Addr), entry), l.dp.PutAddr(addrKey(0, one.Addr), entry))
}

func addrKey(vm uint32, addr netip.Addr) loader.AddrKey {
	return loader.AddrKey{VM: vm, Prefix: netip.PrefixFrom(addr, addr.BitLen())}
}

// end ends leases: first the addresses go, then, in the next round of housekeeping,
// the flows by them.
func (l *leases) end(inv *inventory, ended func(lease.Lease) bool) (n int) {
	for _, one := range l.table.Take(ended) {
		n++
		id, known := inv.numbers.VMs[one.VM]
		if !known {
			continue // its addresses went with it
		}
		l.ended = append(l.ended, holding{id, one.Addr})
		if err := l.release(id, one.Addr); err != nil {
			l.log.Error("cannot take a lease out of the kernel's maps", "vm", one.VM, "address", one.Addr, "error", err)
		}
		l.tell(one.VM, one.Addr, fmt.Sprintf("the lease of %s has ended", one.Addr))
	}
	return n
}

func (l *leases) release(vm uint32, addr netip.Addr) error {
	err := l.dp.DeleteAddr(addrKey(vm, addr))
	holder, ok, lookup := l.dp.Addr(0, addr)
	if ok && holder.VM == vm {
		err = errors.Join(err, l.dp.DeleteAddr(addrKey(0, addr)))
	}
	return errors.Join(err, lookup)
}

// adopt makes the leases agree with a new inventory, and the maps with the leases:
// they may have been made anew while no daemon ran.
func (l *leases) adopt(inv *inventory) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.end(inv, func(one lease.Lease) bool {
		n := inv.byName[one.VM]
		return n == nil || !n.learns() || n.segment.Name != one.Segment || !slices.Contains(n.macs, config.MAC(one.MAC)) ||
			inv.byAddress(one.Addr) != nil
	})
	errs := []error{l.save()}
	for _, one := range l.table.All() {
		errs = append(errs, l.put(inv.byName[one.VM], one))
	}
	return errors.Join(errs...)
}

// clean ends the leases whose time is over, and the flows by addresses that a VM
// has no more.
func (l *leases) clean() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	var errs []error
	if l.end(l.now().inv, func(one lease.Lease) bool { return !now.Before(one.Until) }) > 0 {
		errs = append(errs, l.save())
	}
	if len(l.ended) == 0 {
		return errors.Join(errs...)
	}
	gone := map[holding]bool{}
	for _, h := range l.ended {
		gone[h] = true
	}
	l.ended = nil
	flows := l.dp.Flows()
	for key, flow := range flows.All() {
		for i, dir := range flow.Dir {
			if gone[holding{dir.VM, key.Addr(i).Addr().Unmap()}] {
				errs = append(errs, l.dp.DeleteFlow(key))
			}
		}
	}
	return errors.Join(append(errs, flows.Err())...)
}

func (l *leases) save() error { return l.store.Save("leases", "leases", l.table.All()) }

func (l *leases) tell(vm string, addr netip.Addr, message string) {
	l.journal.write(event.Event{Type: "vm", SrcVM: vm, SrcIP: addr.String(), Message: message})
}
