package loader

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/safchain/ethtool"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Offloads by their kernel names (net/ethtool/common.c).
var (
	// rxMerging merges received packets: XDP refuses it or would not see packets
	// as they were sent.
	rxMerging = []string{"rx-gro", "rx-gro-hw", "rx-gro-list", "rx-udp-gro-forwarding", "rx-lro"}
	// rxVLAN takes tags out of the frame, so that XDP takes a tagged frame for an
	// untagged one. VLAN filters would lose frames.
	rxVLAN = []string{"rx-vlan-hw-parse", "rx-vlan-stag-hw-parse", "rx-vlan-filter", "rx-vlan-stag-filter"}
	// txVLAN leaves tags beside the frame, for the next device to put in.
	txVLAN = []string{"tx-vlan-hw-insert", "tx-vlan-stag-hw-insert"}
	// txChecksum and txSegmentation leave unfinished packets to the next device.
	txChecksum     = []string{"tx-checksum-ip-generic", "tx-checksum-ipv4", "tx-checksum-ipv6", "tx-checksum-sctp"}
	txSegmentation = []string{"tx-tcp-segmentation", "tx-tcp6-segmentation", "tx-tcp-ecn-segmentation",
		"tx-tcp-mangleid-segmentation", "tx-udp-segmentation", "tx-generic-segmentation", "tx-sctp-segmentation",
		"tx-gso-partial", "tx-gso-list"}
)

// prepareDevice makes a device fit for the programs, and keeps the host's own
// IPv6 off it.
func prepareDevice(dev netlink.Link, path Datapath, undo *undoStack) error {
	name := dev.Attrs().Name
	if path == DatapathTCX {
		// A merged packet must come apart again as it was; LRO's does not.
		if err := offloadsOff(name, []string{"rx-lro"}); err != nil {
			return err
		}
	} else if err := prepareXDP(dev, undo); err != nil {
		return err
	}
	if err := noIPv6(dev); err != nil {
		return err
	}
	if err := netlink.SetPromiscOn(dev); err != nil {
		return fmt.Errorf("cannot make %s promiscuous: %w", name, err)
	}
	return nil
}

// prepareXDP sees to it that every frame arrives as it was sent, tags included.
func prepareXDP(dev netlink.Link, undo *undoStack) error {
	name := dev.Attrs().Name
	e, err := ethtool.NewEthtool()
	if err != nil {
		return fmt.Errorf("cannot read the offloads of %s: %w", name, err)
	}
	defer e.Close()
	all := slices.Concat(rxMerging, rxVLAN, txVLAN)
	was, err := activeOffloads(e, name, all)
	if err != nil {
		return err
	}
	undo.push(func() error { return offloadsOn(name, was) })
	if err := offloadsOff(name, all); err != nil {
		return err
	}
	// A veth passes on the tags that its peer left beside the frame.
	if peer := vethPeer(dev); peer != nil {
		return offloadsOff(peer.Attrs().Name, txVLAN)
	}
	return nil
}

// offloadsOn gives a device back what was turned off.
func offloadsOn(device string, names []string) error {
	if len(names) == 0 {
		return nil
	}
	e, err := ethtool.NewEthtool()
	if err != nil {
		return err
	}
	defer e.Close()
	change := map[string]bool{}
	for _, name := range names {
		change[name] = true
	}
	if err := e.Change(device, change); err != nil {
		return fmt.Errorf("cannot turn the offloads of %s on again: %w", device, err)
	}
	return nil
}

// hasHiddenPeer reports whether a device is a veth whose other end is in another
// namespace, beyond reach.
func hasHiddenPeer(dev netlink.Link) bool { return dev.Type() == "veth" && vethPeer(dev) == nil }

// vethPeer returns the peer of a veth in the same namespace, nil otherwise.
func vethPeer(dev netlink.Link) netlink.Link {
	a := dev.Attrs()
	if dev.Type() != "veth" || a.NetNsID >= 0 || a.ParentIndex == 0 {
		return nil
	}
	peer, err := netlink.LinkByIndex(a.ParentIndex)
	// Indexes are unique in one namespace only: the peer must name us back.
	if err != nil || peer.Attrs().ParentIndex != a.Index {
		return nil
	}
	return peer
}

func linkUp(dev netlink.Link) error {
	if err := netlink.LinkSetUp(dev); err != nil {
		return fmt.Errorf("cannot set %s up: %w", dev.Attrs().Name, err)
	}
	return nil
}

// offloadsOff turns the named offloads off and looks whether they are. Those
// that the device does not have are off.
func offloadsOff(device string, names []string) error {
	// The offload ioctls: safchain/ethtool speaks them, with names and state bits.
	e, err := ethtool.NewEthtool()
	if err != nil {
		return fmt.Errorf("cannot read the offloads of %s: %w", device, err)
	}
	defer e.Close()
	on, err := activeOffloads(e, device, names)
	if err != nil || len(on) == 0 {
		return err
	}
	change := map[string]bool{}
	for _, name := range on {
		change[name] = false
	}
	changeErr := e.Change(device, change)
	if on, err = activeOffloads(e, device, names); err != nil {
		return err
	}
	if len(on) > 0 {
		return errors.Join(fmt.Errorf("cannot use %s: its driver keeps %s on; turn it off on the host's side "+
			"(virtio: guest_tso4=off,guest_tso6=off,guest_ufo=off,mrg_rxbuf=on), or use another device model",
			device, strings.Join(on, ", ")), changeErr)
	}
	return nil
}

func activeOffloads(e *ethtool.Ethtool, device string, names []string) ([]string, error) {
	features, err := e.FeaturesWithState(device)
	if err != nil {
		return nil, fmt.Errorf("cannot read the offloads of %s: %w", device, err)
	}
	var on []string
	for _, name := range names {
		if features[name].Active {
			on = append(on, name)
		}
	}
	return on, nil
}

// noIPv6 keeps the host from getting a link-local address and from sending
// router solicitations on a device.
func noIPv6(dev netlink.Link) error {
	const addrGenNone = 1 // IN6_ADDR_GEN_MODE_NONE
	name := dev.Attrs().Name
	if _, err := os.Stat("/proc/sys/net/ipv6"); errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err := writeSysctl(filepath.Join("ipv6/conf", name, "disable_ipv6"), "1"); err != nil {
		return err
	}
	if err := netlink.LinkSetIP6AddrGenMode(dev, addrGenNone); err != nil {
		return fmt.Errorf("cannot turn IPv6 address generation off on %s: %w", name, err)
	}
	return nil
}

// writeSysctl writes a setting below /proc/sys/net, which shows the network
// namespace of the calling thread.
func writeSysctl(path, value string) error {
	path = filepath.Join("/proc/sys/net", path)
	old, err := os.ReadFile(path)
	if err == nil && strings.TrimSpace(string(old)) == value {
		return nil
	}
	if err := os.WriteFile(path, []byte(value), 0); err != nil {
		return fmt.Errorf("cannot set %s to %s: %w", path, value, err)
	}
	return nil
}

// unlessGone returns err, or nil if it says that the device went away meanwhile.
func unlessGone(err error) error {
	if errors.Is(err, unix.ENODEV) {
		return nil
	}
	return err
}

func isNotFound(err error) bool {
	var notFound netlink.LinkNotFoundError
	return errors.As(err, &notFound)
}
