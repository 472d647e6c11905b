package lab

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"

	"github.com/safchain/ethtool" // kept: the kernel's feature strings and their bit sets over SIOCETHTOOL
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// SetUp brings an interface up.
func (n *Namespace) SetUp(name string) error {
	return n.onLink(name, "bring up", n.links.LinkSetUp)
}

// SetDown takes an interface down.
func (n *Namespace) SetDown(name string) error {
	return n.onLink(name, "take down", n.links.LinkSetDown)
}

// SetMTU sets an interface's MTU.
func (n *Namespace) SetMTU(name string, mtu int) error {
	return n.onLink(name, "set the MTU of", func(link netlink.Link) error { return n.links.LinkSetMTU(link, mtu) })
}

// Delete removes an interface, with its other end if it has one.
func (n *Namespace) Delete(name string) error {
	return n.onLink(name, "delete", n.links.LinkDel)
}

func (n *Namespace) onLink(name, verb string, do func(netlink.Link) error) error {
	link, err := n.links.LinkByName(name)
	if err == nil {
		err = do(link)
	}
	if err != nil {
		return fmt.Errorf("cannot %s %s in %s: %w", verb, name, n.name, err)
	}
	return nil
}

// AddAddress gives an interface an address, without duplicate address
// detection, so that it can be used at once.
func (n *Namespace) AddAddress(name string, address netip.Prefix) error {
	return n.onLink(name, "give "+address.String()+" to", func(link netlink.Link) error {
		ip := net.IPNet{IP: address.Addr().AsSlice(), Mask: net.CIDRMask(address.Bits(), address.Addr().BitLen())}
		return n.links.AddrAdd(link, &netlink.Addr{IPNet: &ip, Flags: unix.IFA_F_NODAD})
	})
}

// AddVeth makes a pair of connected interfaces, name here and peer there, both
// up and without IPv6 addresses of their own.
func (n *Namespace) AddVeth(name string, there *Namespace, peer string) error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name = name
	veth := &netlink.Veth{LinkAttrs: attrs, PeerName: peer, PeerNamespace: netlink.NsFd(there.handle)}
	if err := n.links.LinkAdd(veth); err != nil {
		return fmt.Errorf("cannot make %s in %s, a pair with %s: %w", name, n.name, peer, err)
	}
	return errors.Join(n.quiet(name), there.quiet(peer), n.SetUp(name), there.SetUp(peer))
}

// quiet keeps the kernel from sending anything by itself on an interface.
func (n *Namespace) quiet(name string) error {
	return n.Sysctl("ipv6/conf/"+name+"/disable_ipv6", "1")
}

// AddBridge makes an ordinary Linux bridge of some interfaces. hairpin names
// those of them out of which a frame may go that came in by them.
func (n *Namespace) AddBridge(name string, ports []string, hairpin ...string) error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name = name
	bridge := &netlink.Bridge{LinkAttrs: attrs}
	if err := n.links.LinkAdd(bridge); err != nil {
		return fmt.Errorf("cannot make bridge %s in %s: %w", name, n.name, err)
	}
	errs := []error{n.quiet(name)}
	for _, port := range ports {
		errs = append(errs, n.onLink(port, "add to the bridge", func(link netlink.Link) error {
			return n.links.LinkSetMaster(link, bridge)
		}))
	}
	for _, port := range hairpin {
		errs = append(errs, n.onLink(port, "set hairpin on", func(link netlink.Link) error {
			return n.links.LinkSetHairpin(link, true)
		}))
	}
	return errors.Join(append(errs, n.SetUp(name))...)
}

// SetFeatures turns offloads of an interface on or off, by the names that
// `ethtool -k` shows or their older short forms in the kernel's string set
// (for instance "rx-gro").
func (n *Namespace) SetFeatures(name string, features map[string]bool) error {
	err := n.Do(func() error {
		tool, err := ethtool.NewEthtool()
		if err != nil {
			return err
		}
		defer tool.Close()
		return tool.Change(name, features)
	})
	if err != nil {
		return fmt.Errorf("cannot set the offloads of %s in %s: %w", name, n.name, err)
	}
	return nil
}

// AddTap makes a tap interface, up, and returns its queue for NIC.Tap. The
// interface lives as long as the file, which the lab closes.
func (n *Namespace) AddTap(name string) (*os.File, error) {
	file, err := n.openTap(name)
	if err != nil {
		return nil, fmt.Errorf("cannot make tap %s in %s: %w", name, n.name, err)
	}
	n.lab.OnClose(file.Close)
	return file, errors.Join(n.quiet(name), n.SetUp(name))
}

// openTap opens the device in the namespace: the opener's is where the
// interface goes.
func (n *Namespace) openTap(name string) (file *os.File, err error) {
	request, err := unix.NewIfreq(name)
	if err != nil {
		return nil, err
	}
	request.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
	err = n.Do(func() error {
		fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("cannot open /dev/net/tun: %w", err)
		}
		// An os.File only afterwards: the runtime cannot poll a tap that has no interface yet.
		if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, request); err != nil {
			unix.Close(fd)
			return err
		}
		file = os.NewFile(uintptr(fd), name)
		return nil
	})
	return file, err
}
