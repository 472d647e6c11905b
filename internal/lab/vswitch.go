package lab

import (
	"fmt"
	"net"
	"os"

	"github.com/vishvananda/netlink"
)

// VSwitch is a virtual switch in a namespace of its own, with one cable to the
// gateway. Its hosts hang on that cable as macvlan or macvtap in VEPA mode: all
// that one of them sends leaves over the cable, also what is meant for
// another, which gets it only if the gateway sends it back by the same port.
type VSwitch struct {
	Namespace *Namespace
	Port      string // the switch's end of the cable
	Gateway   string // the gateway's end
}

// NewVSwitch makes a switch in a new namespace called like its port, and its
// cable to the gateway.
func (l *Lab) NewVSwitch(port string, gateway *Namespace, gatewayPort string) (*VSwitch, error) {
	ns, err := l.NewNamespace(port)
	if err != nil {
		return nil, err
	}
	if err := ns.AddVeth(port, gateway, gatewayPort); err != nil {
		return nil, err
	}
	// XDP_REDIRECT forgets that a checksum is still to be computed, so the
	// switch finishes checksums and segments before the cable; the guests'
	// offloads stay as they are. And it reaches a veth only if the other end
	// has NAPI, which GRO turns on.
	err = ns.SetFeatures(port, map[string]bool{"tx-checksum-ip-generic": false, "rx-gro": true})
	if err != nil {
		return nil, err
	}
	return &VSwitch{Namespace: ns, Port: port, Gateway: gatewayPort}, nil
}

// AddMacvtap adds a port for a guest with this MAC address and returns its
// queue for NIC.Tap. The lab closes the file.
func (v *VSwitch) AddMacvtap(name string, mac net.HardwareAddr) (*os.File, error) {
	macvlan, err := v.macvlan(name, mac)
	if err != nil {
		return nil, err
	}
	n := v.Namespace
	if err := n.links.LinkAdd(&netlink.Macvtap{Macvlan: *macvlan}); err != nil {
		return nil, fmt.Errorf("cannot make macvtap %s on %s: %w", name, v.Port, err)
	}
	if err := n.quiet(name); err != nil {
		return nil, err
	}
	// The multicast groups that a guest joins never reach the macvtap, which
	// would filter them out, and IPv6 neighbour discovery with them.
	if err := n.onLink(name, "receive all multicast on", n.links.LinkSetAllmulticastOn); err != nil {
		return nil, err
	}
	if err := n.SetUp(name); err != nil {
		return nil, err
	}
	file, err := n.openMacvtap(name)
	if err != nil {
		return nil, fmt.Errorf("cannot open macvtap %s in %s: %w", name, n.name, err)
	}
	n.lab.OnClose(file.Close)
	return file, nil
}

// addMacvlan adds a port that is an interface of another namespace.
func (v *VSwitch) addMacvlan(name string, mac net.HardwareAddr, to *Namespace) error {
	macvlan, err := v.macvlan(name, mac)
	if err != nil {
		return err
	}
	macvlan.Namespace = netlink.NsFd(to.handle)
	if err := v.Namespace.links.LinkAdd(macvlan); err != nil {
		return fmt.Errorf("cannot make macvlan %s on %s: %w", name, v.Port, err)
	}
	return nil
}

func (v *VSwitch) macvlan(name string, mac net.HardwareAddr) (*netlink.Macvlan, error) {
	lower, err := v.Namespace.links.LinkByName(v.Port)
	if err != nil {
		return nil, fmt.Errorf("cannot find %s in %s: %w", v.Port, v.Namespace.name, err)
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.ParentIndex, attrs.HardwareAddr = name, lower.Attrs().Index, mac
	return &netlink.Macvlan{LinkAttrs: attrs, Mode: netlink.MACVLAN_MODE_VEPA}, nil
}
