package loader

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"

	"github.com/vmgate/vmgate/bpf"
)

// fillPort tells the programs of all ports where this one is.
func (d *Dataplane) fillPort(p Port, path Datapath, dev netlink.Link, undo *undoStack) error {
	index := uint32(dev.Attrs().Index)
	// Only a driver that has XDP itself surely takes frames from another's.
	stack := p.Kind == PortVNIC && (path == DatapathTCX || path == DatapathXDPGeneric)
	entry := wirePort{Ifindex: index, Flags: flag(p.HasRouter, bpf.VmgatePortFlagPORT_HAS_ROUTER) |
		flag(p.Reflect, bpf.VmgatePortFlagPORT_REFLECT) | flag(stack, bpf.VmgatePortFlagPORT_STACK) |
		flag(p.Proxy, bpf.VmgatePortFlagPORT_PROXY), Mac: macOf(dev)}
	putCstr(entry.Name[:], p.Device)
	var old wirePort
	if err := d.maps["ports"].Lookup(p.ID, &old); err != nil {
		return fmt.Errorf("cannot read entry %d of map ports: %w", p.ID, err)
	}
	if old.Ifindex != index {
		undo.push(func() error { return d.clearPort(p.ID) })
	}
	if !stack { // before the flag goes, so that there is a way at any moment
		if err := d.maps["tx_ports"].Put(p.ID, index); err != nil {
			return fmt.Errorf("cannot make port %d a target of redirects: %w", p.ID, err)
		}
	}
	if err := d.maps["ports"].Put(p.ID, &entry); err != nil {
		return fmt.Errorf("cannot write entry %d of map ports: %w", p.ID, err)
	}
	if stack {
		return d.noTarget(p.ID)
	}
	return nil // the kernel drops the entry of tx_ports by itself when the device goes
}

// macOf returns a device's own MAC address, zero if it has none.
func macOf(dev netlink.Link) (mac [6]byte) {
	copy(mac[:], dev.Attrs().HardwareAddr)
	return mac
}

// clearPort makes the programs forget a port.
func (d *Dataplane) clearPort(id uint32) error {
	if err := errors.Join(d.noTarget(id), d.maps["ports"].Put(id, &wirePort{})); err != nil {
		return fmt.Errorf("cannot clear port %d: %w", id, err)
	}
	return nil
}

// noTarget ends XDP's redirects to a port.
func (d *Dataplane) noTarget(id uint32) error {
	if err := d.maps["tx_ports"].Delete(id); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return fmt.Errorf("cannot take port %d out of the targets of redirects: %w", id, err)
	}
	return nil
}

// filledPorts returns the device names in the ports map by port id: what this
// daemon or an earlier one had attached.
func filledPorts(m *ebpf.Map) (map[uint32]string, error) {
	filled := map[uint32]string{}
	all := entries(m, "ports", identity[uint32], identity[wirePort])
	for id, p := range all.All() {
		if p != (wirePort{}) {
			filled[id] = cstr(p.Name[:])
		}
	}
	return filled, all.Err()
}
