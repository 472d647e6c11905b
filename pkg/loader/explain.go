package loader

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/features"
	"github.com/safchain/ethtool"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// maxXDPMTU is the greatest MTU that a driver with one 4096-byte page for each
// packet can have under XDP: less 256 bytes of headroom, the packet's skb_shared_info
// (320) and its Ethernet header with two tags (22).
const maxXDPMTU = 4096 - 256 - 320 - 22

// explainAttach says why a program could not be attached to a device and what
// to do about it. The kernel gives a number only.
func explainAttach(h hook, dev netlink.Link, err error) error {
	name := dev.Attrs().Name
	what := fmt.Sprintf("cannot attach %s to %s", h.program, name)
	if hint := attachHint(h, dev, err); hint != "" {
		return fmt.Errorf("%s: %s: %w", what, hint, err)
	}
	return fmt.Errorf("%s: %w", what, err)
}

func attachHint(h hook, dev netlink.Link, err error) string {
	switch {
	case errors.Is(err, unix.EPERM):
		return "not permitted: run as root, or with CAP_BPF and CAP_NET_ADMIN"
	case errors.Is(err, unix.ENODEV), errors.Is(err, unix.ENOLINK):
		return "the device went away meanwhile"
	case h.attach != ebpf.AttachXDP:
		return ""
	}
	if hint := otherXDP(dev); hint != "" {
		return hint
	}
	if errors.Is(features.HaveProgramType(ebpf.XDP), ebpf.ErrNotSupported) || errors.Is(err, ebpf.ErrNotSupported) {
		return "the kernel has no XDP links: it must be 5.9 or newer, with CONFIG_XDP_SOCKETS or CONFIG_BPF_SYSCALL on"
	}
	for _, hint := range []func(netlink.Link) string{mergingHint, mtuHint, queueHint} {
		if h := hint(dev); h != "" {
			return h
		}
	}
	if errors.Is(err, unix.EOPNOTSUPP) {
		return fmt.Sprintf("its driver (%s) has no native XDP; use virtio-net, veth, vmxnet3 (kernel 6.6), "+
			"or another device whose driver has it", driver(dev))
	}
	return ""
}

// otherXDP names the XDP program that holds the device already.
func otherXDP(dev netlink.Link) string {
	fresh, err := netlink.LinkByIndex(dev.Attrs().Index)
	if err != nil || fresh.Attrs().Xdp == nil || !fresh.Attrs().Xdp.Attached {
		return ""
	}
	id := fresh.Attrs().Xdp.ProgId
	return fmt.Sprintf("another XDP program is on it (id %d, name %q): find out whose it is (bpftool prog show id %d; "+
		"bpftool link) and stop that, or take it off: ip link set dev %s xdp off",
		id, programName(ebpf.ProgramID(id)), id, dev.Attrs().Name)
}

func mergingHint(dev netlink.Link) string {
	e, err := ethtool.NewEthtool()
	if err != nil {
		return ""
	}
	defer e.Close()
	on, err := activeOffloads(e, dev.Attrs().Name, []string{"rx-lro", "rx-gro-hw"})
	if err != nil || len(on) == 0 {
		return ""
	}
	return fmt.Sprintf("its driver keeps %s on: turn it off on the host's side (virtio: guest_tso4=off,guest_tso6=off)",
		strings.Join(on, " and "))
}

func mtuHint(dev netlink.Link) string {
	mtus := []int{dev.Attrs().MTU}
	// A veth refuses because of its peer's MTU.
	if peer := vethPeer(dev); peer != nil {
		mtus = append(mtus, peer.Attrs().MTU)
	}
	if mtu := slices.Max(mtus); mtu > maxXDPMTU {
		return fmt.Sprintf("its MTU of %d is too large for XDP: set it, on both ends, to %d or less (ip link set dev %s mtu 1500)",
			mtu, maxXDPMTU, dev.Attrs().Name)
	}
	return ""
}

func queueHint(dev netlink.Link) string {
	peer := vethPeer(dev)
	if rx := dev.Attrs().NumRxQueues; peer != nil && peer.Attrs().NumTxQueues > rx {
		return fmt.Sprintf("it has %d receive queues, fewer than its peer %s has transmit queues (%d): "+
			"make the pair with as many (ip link add … numrxqueues N)", rx, peer.Attrs().Name, peer.Attrs().NumTxQueues)
	}
	e, err := ethtool.NewEthtool()
	if err != nil {
		return ""
	}
	defer e.Close()
	ch, err := e.GetChannels(dev.Attrs().Name)
	if err != nil {
		return ""
	}
	if driver(dev) == "virtio_net" && ch.MaxCombined < 2 {
		return fmt.Sprintf("it has one queue pair (%d); give the device more on the host's side (virtio: mq=on, queues=2)", ch.MaxCombined)
	}
	return ""
}

func driver(dev netlink.Link) string {
	e, err := ethtool.NewEthtool()
	if err != nil {
		return dev.Type()
	}
	defer e.Close()
	name, err := e.DriverName(dev.Attrs().Name)
	if err != nil || name == "" {
		return dev.Type()
	}
	return name
}
