package app

import (
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/vmgate/vmgate/internal/config"
	"github.com/vmgate/vmgate/pkg/loader"
	"github.com/vmgate/vmgate/pkg/verdict"
)

// Idle times of decided flows, as conntrack has them by default
// (net/netfilter/nf_conntrack_proto_*.c), but for established TCP: a flow that
// comes back after an hour is decided anew, in the middle, and goes on.
const (
	tcpEstablishedIdle = time.Hour
	tcpTransientIdle   = time.Minute
	udpIdle            = 2 * time.Minute
	otherIdle          = 30 * time.Second
)

const (
	heartbeatEvery   = 200 * time.Millisecond
	heartbeatTimeout = 2 * time.Second
	pendingTimeout   = 3 * time.Second
	eventSample      = 20 // events a second, port and reason
)

// settingsFor derives the kernel programs' settings.
func settingsFor(cfg *config.Config) loader.Settings {
	mode := loader.ModeEnforce
	if cfg.Enforcement == "monitor" {
		mode = loader.ModeMonitor
	}
	s := loader.Settings{
		Mode:             mode,
		NewFlowsOpen:     cfg.Failure.Daemon == "open",
		HeldPerFlow:      uint32(cfg.Decision.HeldPerFlow),
		HeartbeatTimeout: heartbeatTimeout,
		PendingTimeout:   pendingTimeout,
		TCPEstablished:   tcpEstablishedIdle,
		TCPTransient:     tcpTransientIdle,
		UDPIdle:          udpIdle,
		OtherIdle:        otherIdle,
		EventSample:      eventSample,
	}
	return s
}

// inventoryMaps is what the maps must say of an inventory.
type inventoryMaps struct {
	vms   map[uint32]loader.VMEntry
	macs  map[loader.MACKey]loader.MACEntry
	addrs map[loader.AddrKey]loader.AddrEntry
}

func mapsFor(inv *inventory, book *verdict.Book) inventoryMaps {
	m := inventoryMaps{map[uint32]loader.VMEntry{}, map[loader.MACKey]loader.MACEntry{}, map[loader.AddrKey]loader.AddrEntry{}}
	for _, n := range inv.byID {
		standing, _ := book.JudgeVM(n.name)
		m.vms[n.id] = loader.VMEntry{
			Verdict:    uint32(max(standing.Verdict, verdict.Forward)),
			Cause:      uint32(standing.Cause),
			Router:     n.router != nil,
			DHCPServer: n.router != nil && n.router.DHCP,
			Learn:      n.learns(),
			Name:       n.name,
		}
		for _, mac := range n.macs {
			for _, vlan := range n.vlans {
				key := loader.MACKey{MAC: loader.MAC(mac), VLANOuter: vlan.Outer, VLANInner: vlan.Inner, Group: uint16(n.segment.group)}
				m.macs[key] = loader.MACEntry{VM: n.id, Segment: n.segment.number, Port: n.segment.number}
			}
		}
		m.address(n)
	}
	return m
}

// address enters a node's addresses twice: under its own id, as what it may
// use, and under id 0, as whose they are.
func (m inventoryMaps) address(n *node) {
	entry := loader.AddrEntry{VM: n.id, Port: n.segment.number, MAC: loader.MAC(n.macs[0])}
	for _, prefix := range n.addresses() {
		m.addrs[loader.AddrKey{VM: n.id, Prefix: prefix}] = entry
		m.addrs[loader.AddrKey{VM: 0, Prefix: prefix}] = entry
	}
}

// addInventory writes what an inventory needs; it takes nothing away.
func addInventory(dp *loader.Dataplane, want inventoryMaps) error {
	var errs []error
	for id, entry := range want.vms {
		errs = append(errs, dp.SetVM(id, entry))
	}
	for key, entry := range want.addrs {
		errs = append(errs, dp.PutAddr(key, entry))
	}
	for key, entry := range want.macs {
		errs = append(errs, dp.PutMAC(key, entry))
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("cannot write the inventory to the kernel's maps: %w", err)
	}
	return nil
}

// pruneInventory takes away what the inventory does not say. Addresses that a
// VM has learned stay while it may learn.
func pruneInventory(dp *loader.Dataplane, want inventoryMaps) error {
	var errs []error
	macs := dp.MACs()
	for key := range macs.All() {
		if _, ok := want.macs[key]; !ok {
			errs = append(errs, dp.DeleteMAC(key))
		}
	}
	addrs := dp.Addrs()
	for key, entry := range addrs.All() {
		_, ok := want.addrs[key]
		_, taken := want.addrs[loader.AddrKey{Prefix: key.Prefix}] // another's by now
		if !ok && (taken || !want.vms[entry.VM].Learn || !isHost(key.Prefix)) {
			errs = append(errs, dp.DeleteAddr(key))
		}
	}
	vms := dp.VMs()
	for id := range vms.All() {
		if _, ok := want.vms[id]; !ok && id != 0 {
			errs = append(errs, dp.SetVM(id, loader.VMEntry{}))
		}
	}
	errs = append(errs, macs.Err(), addrs.Err(), vms.Err())
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("cannot take old entries out of the kernel's maps: %w", err)
	}
	return nil
}

func isHost(p netip.Prefix) bool { return p.Bits() == p.Addr().BitLen() }
