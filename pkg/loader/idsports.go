package loader

import (
	"errors"
	"fmt"
	"slices"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/vmgate/vmgate/bpf"
)

// IDSPorts are two veth pairs between the gateway and an inline IDS beside it:
// In to EngineIn and Out to EngineOut.
type IDSPorts struct {
	In, Out             string // the gateway's ends, in the caller's namespace
	EngineIn, EngineOut string // the engine's ends
	NetNS               string // named namespace of the engine's ends, as ip-netns(8) has them
	MTU                 int    // of all four; 0 leaves the kernel's
}

// EnsureIDSPorts makes the veth pairs and, if it is missing, the engine's
// namespace, or adopts what is there and right. No end has an address or IPv6,
// none merges, segments or leaves checksums and tags to the next device: the
// engine sees packets as they were sent. The engine's ends run vmgate_pass,
// without which a veth takes no redirected frames.
func EnsureIDSPorts(p IDSPorts) error {
	if err := p.ensure(); err != nil {
		return fmt.Errorf("cannot make the IDS ports: %w", err)
	}
	return nil
}

func (p IDSPorts) ensure() (err error) {
	var undo undoStack
	defer func() {
		if err != nil {
			err = errors.Join(err, undo.run())
		}
	}()
	ns, err := ensureNetNS(p.NetNS, &undo)
	if err != nil {
		return err
	}
	defer ns.Close()
	pass, err := loadPass()
	if err != nil {
		return err
	}
	defer pass.Close()
	for _, pair := range p.pairs() {
		if err := ensurePair(pair, ns, &undo); err != nil {
			return err
		}
		if err := p.prepareEnd(pair.gateway, nil); err != nil {
			return err
		}
		if err := inNetNS(ns, func() error { return p.prepareEnd(pair.engine, pass) }); err != nil {
			return fmt.Errorf("in namespace %s: %w", p.NetNS, err)
		}
	}
	return nil
}

// RemoveIDSPorts deletes the veth pairs and the namespace, those that
// EnsureIDSPorts made. Removing what is not there is no error.
func RemoveIDSPorts(p IDSPorts) error {
	var errs []error
	for _, pair := range p.pairs() {
		dev, err := netlink.LinkByName(pair.gateway)
		if isNotFound(err) || err == nil && dev.Attrs().Alias != idsAlias {
			continue
		}
		if err == nil {
			err = netlink.LinkDel(dev)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("cannot remove the IDS port %s: %w", pair.gateway, err))
		}
	}
	return errors.Join(append(errs, removeNetNS(p.NetNS))...)
}

// idsAlias marks the gateway's end of a pair that we made.
const idsAlias = "vmgate IDS port"

type vethPair struct{ gateway, engine string }

func (p IDSPorts) pairs() []vethPair {
	return []vethPair{{p.In, p.EngineIn}, {p.Out, p.EngineOut}}
}

// ensurePair makes one veth pair across the namespaces unless it is there. What
// else bears one of the names is refused.
func ensurePair(pair vethPair, ns netns.NsHandle, undo *undoStack) error {
	gateway, err := netlink.LinkByName(pair.gateway)
	if err == nil {
		return checkPair(pair, gateway, ns)
	}
	if !isNotFound(err) {
		return fmt.Errorf("cannot find %s: %w", pair.gateway, err)
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name = pair.gateway
	veth := netlink.NewVeth(attrs)
	veth.PeerName, veth.PeerNamespace = pair.engine, netlink.NsFd(ns)
	if err := netlink.LinkAdd(veth); err != nil {
		return fmt.Errorf("cannot make the veth pair %s–%s: %w", pair.gateway, pair.engine, err)
	}
	undo.push(func() error { return netlink.LinkDel(veth) })
	if err := netlink.LinkSetAlias(veth, idsAlias); err != nil {
		return fmt.Errorf("cannot mark %s: %w", pair.gateway, err)
	}
	return nil
}

func checkPair(pair vethPair, gateway netlink.Link, ns netns.NsHandle) error {
	return inNetNS(ns, func() error {
		engine, err := netlink.LinkByName(pair.engine)
		if err == nil && gateway.Type() == "veth" && gateway.Attrs().ParentIndex == engine.Attrs().Index &&
			engine.Attrs().ParentIndex == gateway.Attrs().Index {
			return nil
		}
		return fmt.Errorf("%s exists and is not the other end of %s in the engine's namespace: "+
			"remove it (ip link del %s), or choose other names", pair.gateway, pair.engine, pair.gateway)
	})
}

// prepareEnd makes one end as EnsureIDSPorts says, with the XDP program pass on
// it if that is not nil.
func (p IDSPorts) prepareEnd(name string, pass *ebpf.Program) error {
	dev, err := netlink.LinkByName(name)
	if err != nil {
		return fmt.Errorf("cannot find %s: %w", name, err)
	}
	if p.MTU != 0 && dev.Attrs().MTU != p.MTU {
		if err := netlink.LinkSetMTU(dev, p.MTU); err != nil {
			return fmt.Errorf("cannot set the MTU of %s to %d: %w", name, p.MTU, err)
		}
	}
	if err := offloadsOff(name, slices.Concat(rxMerging, rxVLAN, txVLAN, txSegmentation, txChecksum)); err != nil {
		return err
	}
	if err := noIPv6(dev); err != nil {
		return err
	}
	if pass != nil {
		if err := attachPass(dev, pass); err != nil {
			return err
		}
	}
	return linkUp(dev)
}

// attachPass puts the program on by netlink, not by a link: it shall stay for as
// long as the device does, and there is nothing to hold.
func attachPass(dev netlink.Link, pass *ebpf.Program) error {
	if xdp := dev.Attrs().Xdp; xdp != nil && xdp.Attached {
		if programName(ebpf.ProgramID(xdp.ProgId)) == passProgram {
			return nil
		}
		return explainAttach(hook{program: passProgram, attach: ebpf.AttachXDP}, dev, unix.EBUSY)
	}
	flags := unix.XDP_FLAGS_DRV_MODE | unix.XDP_FLAGS_UPDATE_IF_NOEXIST
	if err := netlink.LinkSetXdpFdWithFlags(dev, pass.FD(), flags); err != nil {
		return explainAttach(hook{program: passProgram, attach: ebpf.AttachXDP}, dev, err)
	}
	return nil
}

const passProgram = "vmgate_pass"

// loadPass loads vmgate_pass, which lets everything by and needs no maps.
func loadPass() (*ebpf.Program, error) {
	spec, err := bpf.LoadVmgate()
	if err != nil {
		return nil, fmt.Errorf("cannot read the BPF objects built into this program: %w", err)
	}
	pass, err := ebpf.NewProgram(spec.Programs[passProgram])
	if err != nil {
		return nil, fmt.Errorf("cannot load %s: %w", passProgram, err)
	}
	return pass, nil
}
