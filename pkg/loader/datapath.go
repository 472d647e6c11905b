package loader

import (
	"errors"
	"fmt"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Datapath says which hook of a vNIC decides. Both run the same classification.
type Datapath string

// The data paths. XDP is first in packets a second; TCX keeps segmentation and
// checksum offload, so that bulk streams cost less, and works on every device.
const (
	DatapathAuto       Datapath = "auto"        // XDP where driver and offloads allow it, else TCX; also ""
	DatapathXDP        Datapath = "xdp"         // native XDP, or the port is refused
	DatapathTCX        Datapath = "tcx"         // TCX, or clsact before Linux 6.6
	DatapathXDPGeneric Datapath = "xdp-generic" // XDP in the stack: slower than either, for tests of XDP alone
)

// choose attaches a port by the data path that it wants. auto falls back to TCX,
// and why is kept in the state.
func (d *Dataplane) choose(p Port, dev netlink.Link, st *PortState) error {
	var err error
	switch p.Datapath {
	case DatapathAuto, "":
		st.Datapath = DatapathXDP
		if p.Kind == PortVNIC {
			if err = mayLoseTags(p, dev); err == nil {
				st.Adopted, err = d.attachDevice(p, dev, DatapathXDP)
			}
			if err == nil || hopeless(err) {
				return err
			}
			st.Datapath, st.Fallback = DatapathTCX, err
		}
	default:
		st.Datapath = p.Datapath
		if p.Datapath != DatapathTCX {
			if err = mayLoseTags(p, dev); err != nil {
				return err
			}
		}
	}
	st.Adopted, err = d.attachDevice(p, dev, st.Datapath)
	return err
}

// hopeless reports whether the other data path would fail as well.
func hopeless(err error) bool {
	return errors.Is(err, unix.EPERM) || errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ENOLINK)
}

// mayLoseTags refuses XDP where tags would not be in the frame and nothing here
// can change that: the other end of a veth, out of reach, leaves them beside it.
func mayLoseTags(p Port, dev netlink.Link) error {
	if p.Kind != PortVNIC || !p.Tagged || !hasHiddenPeer(dev) {
		return nil
	}
	return fmt.Errorf("the segment has VLANs, and XDP does not see the tags that the other end of %s, "+
		"in another namespace, leaves beside the frame: use datapath tcx", p.Device)
}

// hooksOf returns the hooks of a kind of port in the order of attaching: what
// leaves is filtered first.
func hooksOf(kind PortKind, path Datapath) []hook {
	switch {
	case kind != PortVNIC:
		return []hook{hookDeliver, hookIDS}
	case path == DatapathTCX:
		return []hook{hookEgress, hookTCX}
	case path == DatapathXDPGeneric:
		return []hook{hookEgress, hookGeneric, hookMark}
	}
	return []hook{hookEgress, hookVNIC, hookMark}
}

// hasHooks reports whether the deciding program of a port is still on its device.
func (d *Dataplane) hasHooks(st PortState, dev netlink.Link) bool {
	if st.Datapath != DatapathTCX || st.Kind != PortVNIC {
		xdp := dev.Attrs().Xdp
		return xdp != nil && xdp.Attached
	}
	if d.useClsact {
		return hookTCX.hasFilter(dev)
	}
	return hookTCX.isLinked(dev, d.pins.linkPath(st.Device, hookTCX.name))
}

// xdpMode returns the flag to attach with and what the kernel says of it then.
func (h hook) xdpMode() (flag, attached uint32) {
	const driver, generic = 1, 2 // XDP_ATTACHED_DRV, XDP_ATTACHED_SKB
	if h.generic {
		return unix.XDP_FLAGS_SKB_MODE, generic
	}
	return unix.XDP_FLAGS_DRV_MODE, driver
}
