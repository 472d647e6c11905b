package loader

import (
	"errors"
	"fmt"
	"net"
	"path/filepath"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// bridgeAlias marks a bridge as ours, and says whose pins it belongs to.
const bridgeAlias = "vmgate "

// EnsureBridge makes the gateway's own bridge, which carries packets that the
// daemon has yet to decide on to the netfilter queue, or adopts the one that was
// made for the same pins. It has no address, no IPv6, no spanning tree and no
// snooping. A bridge of that name that is not ours is refused.
func EnsureBridge(name, pins string) error {
	link, err := netlink.LinkByName(name)
	if isNotFound(err) {
		link, err = addBridge(name, pins)
	}
	if err != nil {
		return fmt.Errorf("cannot make bridge %s: %w", name, err)
	}
	if link.Type() != "bridge" || link.Attrs().Alias != bridgeAlias+pins {
		return fmt.Errorf("cannot use %s as the gateway's bridge: there is a %s of that name which vmgate did not make for %s; "+
			"choose another name, or remove it (ip link del %s)", name, link.Type(), pins, name)
	}
	if err := noIPv6(link); err != nil {
		return err
	}
	// Never answer ARP from it for addresses that the gateway has elsewhere.
	if err := writeSysctl(filepath.Join("ipv4/conf", name, "arp_ignore"), "8"); err != nil {
		return err
	}
	return linkUp(link)
}

func addBridge(name, pins string) (netlink.Link, error) {
	attrs := netlink.NewLinkAttrs()
	attrs.Name = name
	snooping := false
	if err := netlink.LinkAdd(&netlink.Bridge{LinkAttrs: attrs, MulticastSnooping: &snooping}); err != nil {
		return nil, err
	}
	link, err := netlink.LinkByName(name)
	if err != nil {
		return nil, err
	}
	if err := netlink.LinkSetAlias(link, bridgeAlias+pins); err != nil {
		return nil, errors.Join(err, netlink.LinkDel(link))
	}
	return netlink.LinkByName(name)
}

// FDBEntry says which device of the bridge leads to a MAC address.
type FDBEntry struct {
	MAC    MAC
	Device string
}

// SetBridgeFDB makes want the static entries of a bridge: entries that are not
// in it are removed. Its ports do not learn and unknown unicast is not flooded,
// so that these entries alone say where frames go. Entries for devices that do
// not exist or are no ports of the bridge are left out; set them again when they
// are.
func SetBridgeFDB(bridge string, want []FDBEntry) error {
	br, err := netlink.LinkByName(bridge)
	if err != nil {
		return fmt.Errorf("cannot find bridge %s: %w", bridge, err)
	}
	links, err := netlink.LinkList()
	if err != nil {
		return fmt.Errorf("cannot list the ports of bridge %s: %w", bridge, err)
	}
	ports, index := map[int]string{}, map[string]int{}
	for _, l := range links {
		if a := l.Attrs(); a.MasterIndex == br.Attrs().Index {
			ports[a.Index], index[a.Name] = a.Name, a.Index
		}
	}
	wanted := map[FDBEntry]bool{}
	for _, e := range want {
		wanted[e] = index[e.Device] != 0
	}
	present, err := netlink.NeighList(0, unix.AF_BRIDGE)
	if err != nil {
		return fmt.Errorf("cannot read the entries of bridge %s: %w", bridge, err)
	}
	var errs []error
	for _, n := range present {
		device, isPort := ports[n.LinkIndex]
		if !isPort || n.State&unix.NUD_NOARP == 0 || len(n.HardwareAddr) != len(MAC{}) {
			continue
		}
		if e := (FDBEntry{MAC(n.HardwareAddr), device}); !wanted[e] {
			if err := netlink.NeighDel(fdbNeigh(e.MAC, n.LinkIndex)); err != nil && !errors.Is(err, unix.ENOENT) {
				errs = append(errs, fmt.Errorf("cannot remove %s from bridge %s: %w", e.MAC, bridge, err))
			}
		}
	}
	for e, there := range wanted {
		if !there {
			continue
		}
		if err := netlink.NeighSet(fdbNeigh(e.MAC, index[e.Device])); err != nil {
			errs = append(errs, fmt.Errorf("cannot add %s on %s to bridge %s: %w", e.MAC, e.Device, bridge, err))
		}
	}
	return errors.Join(errs...)
}

// fdbNeigh is a static entry: it neither ages nor, on a port that does not
// learn, moves.
func fdbNeigh(mac MAC, index int) *netlink.Neigh {
	return &netlink.Neigh{
		LinkIndex:    index,
		Family:       unix.AF_BRIDGE,
		State:        unix.NUD_NOARP,
		Flags:        unix.NTF_MASTER,
		HardwareAddr: net.HardwareAddr(mac[:]),
	}
}

// joinBridge enslaves a port's device to its bridge, as a port that neither
// learns nor gets frames for unknown addresses.
func (d *Dataplane) joinBridge(p Port, dev netlink.Link, undo *undoStack) error {
	if p.Bridge == "" {
		return leaveBridge(dev, d.pins)
	}
	bridge, err := netlink.LinkByName(p.Bridge)
	if err != nil {
		return fmt.Errorf("cannot find bridge %s: %w", p.Bridge, err)
	}
	if master := dev.Attrs().MasterIndex; master != bridge.Attrs().Index {
		if master != 0 {
			return fmt.Errorf("%s belongs to another bridge or bond (index %d): take it out (ip link set dev %s nomaster)",
				p.Device, master, p.Device)
		}
		if err := netlink.LinkSetMaster(dev, bridge); err != nil {
			return fmt.Errorf("cannot put %s into bridge %s: %w", p.Device, p.Bridge, err)
		}
		undo.push(func() error { return netlink.LinkSetNoMaster(dev) })
	}
	if err := errors.Join(
		netlink.LinkSetLearning(dev, false),
		netlink.LinkSetFlood(dev, false),
		netlink.LinkSetHairpin(dev, p.Reflect),
	); err != nil {
		return fmt.Errorf("cannot set the bridge port %s: %w", p.Device, err)
	}
	return nil
}

// leaveBridge takes a device out of a bridge that is ours; another one is none
// of our business.
func leaveBridge(dev netlink.Link, pins pinDir) error {
	master := dev.Attrs().MasterIndex
	if master == 0 {
		return nil
	}
	bridge, err := netlink.LinkByIndex(master)
	if err != nil || bridge.Attrs().Alias != bridgeAlias+string(pins) {
		return nil
	}
	if err := netlink.LinkSetNoMaster(dev); err != nil {
		return fmt.Errorf("cannot take %s out of bridge %s: %w", dev.Attrs().Name, bridge.Attrs().Name, err)
	}
	return nil
}

// removeBridges deletes the bridges that were made for these pins.
func removeBridges(pins pinDir) error {
	links, err := netlink.LinkList()
	if err != nil {
		return fmt.Errorf("cannot list bridges: %w", err)
	}
	var errs []error
	for _, l := range links {
		if l.Type() == "bridge" && l.Attrs().Alias == bridgeAlias+string(pins) {
			errs = append(errs, netlink.LinkDel(l))
		}
	}
	return errors.Join(errs...)
}
