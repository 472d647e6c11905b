package loader

import (
	"errors"
	"fmt"
	"slices"

	"github.com/cilium/ebpf"
	"github.com/vishvananda/netlink"
)

// attach brings one port into the wanted state and says how that went.
func (d *Dataplane) attach(p Port) PortState {
	st := PortState{Port: p}
	dev, err := netlink.LinkByName(p.Device)
	switch {
	case isNotFound(err):
		// Links of a device that is gone cling to their pins, and its index may be
		// another's one day.
		st.Err = errors.Join(ErrNoDevice, d.detach(p.Device), d.clearPort(p.ID))
		return st
	case err != nil:
		st.Err = fmt.Errorf("cannot find device %s: %w", p.Device, err)
		return st
	case dev.Attrs().Name != p.Device:
		st.Err = fmt.Errorf("%s is another name of device %s: configure that", p.Device, dev.Attrs().Name)
		return st
	}
	st.Ifindex = dev.Attrs().Index
	if st.Err = d.choose(p, dev, &st); st.Err != nil {
		st.Err = fmt.Errorf("cannot attach port %d: %w", p.ID, st.Err)
		return st
	}
	st.Attached = true
	d.log.Info("port attached", "device", p.Device, "port", p.ID, "ifindex", st.Ifindex, "adopted", st.Adopted, "datapath", st.Datapath)
	return st
}

// attachDevice attaches all programs of a port to its device, or none: on an
// error it takes back what it did. What an earlier daemon left stays; it filters.
func (d *Dataplane) attachDevice(p Port, dev netlink.Link, path Datapath) (adopted bool, err error) {
	progs, err := d.loadPrograms(p, path, dev)
	if err != nil {
		return false, err
	}
	defer progs.Close()
	var undo undoStack
	defer func() {
		if err != nil {
			err = errors.Join(err, undo.run())
		}
	}()
	if err := prepareDevice(dev, path, &undo); err != nil {
		return false, err
	}
	adopted = true
	for i, h := range hooksOf(p.Kind, path) {
		if i == 1 {
			// All that the kernel sends is filtered by now: the device may join its
			// bridge.
			if err := d.joinBridge(p, dev, &undo); err != nil {
				return false, err
			}
		}
		kept, err := d.attachHook(h, progs.Programs[h.program], dev, &undo)
		if err != nil {
			return false, explainAttach(h, dev, err)
		}
		adopted = adopted && kept
	}
	if err := d.dropForeignHooks(p, path, dev); err != nil {
		return false, err
	}
	if err := d.fillPort(p, path, dev, &undo); err != nil {
		return false, err
	}
	return adopted, linkUp(dev) // a new device is up only now that it is filtered
}

// attachHook adopts the hook's link on a device or makes it.
func (d *Dataplane) attachHook(h hook, prog *ebpf.Program, dev netlink.Link, undo *undoStack) (adopted bool, err error) {
	pin := d.pins.linkPath(dev.Attrs().Name, h.name)
	if h.attach != ebpf.AttachXDP && d.useClsact {
		if adopted, err = h.setFilter(prog, dev); err == nil && !adopted {
			undo.push(func() error { return h.dropFilter(dev) })
		}
		return adopted, err
	}
	if adopted, err = h.adopt(prog, dev, pin); adopted || err != nil {
		return adopted, err
	}
	if err = h.create(prog, dev, pin); err == nil {
		undo.push(func() error { return dropPinned(pin) })
	}
	return false, err
}

// loadPrograms makes the port's own copy of its programs, which share all maps
// with the copies of other ports.
func (d *Dataplane) loadPrograms(p Port, path Datapath, dev netlink.Link) (*ebpf.Collection, error) {
	spec := d.spec.Copy()
	hooks := hooksOf(p.Kind, path)
	for name := range spec.Programs {
		if !slices.ContainsFunc(hooks, func(h hook) bool { return h.program == name }) {
			delete(spec.Programs, name)
		}
	}
	port := wirePortConfig{
		Id: p.ID, Kind: uint32(p.Kind), Segment: p.Segment, Group: p.Group,
		Mac: macOf(dev), Proxy: flag(p.Proxy, uint8(1)), Answer: flag(p.Answer, uint8(1)),
		Multicast: flag(p.Multicast, uint8(1)),
	}
	if err := spec.Variables["port"].Set(port); err != nil {
		return nil, fmt.Errorf("cannot specialise the programs of %s: %w", p.Device, err)
	}
	progs, err := ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{MapReplacements: d.maps})
	if err != nil {
		return nil, fmt.Errorf("cannot load the programs of %s: %w", p.Device, err)
	}
	return progs, nil
}

// dropForeignHooks removes the link that the device has from a port of another
// kind or data path.
func (d *Dataplane) dropForeignHooks(p Port, path Datapath, dev netlink.Link) error {
	if p.Kind != PortVNIC {
		return d.dropHook(hookEgress, p.Device, dev)
	}
	if path == DatapathTCX {
		return d.dropHook(hookVNIC, p.Device, dev)
	}
	return nil
}

// detach takes all that is ours off a device, which need not exist any more.
func (d *Dataplane) detach(device string) error {
	dev, err := netlink.LinkByName(device)
	if err != nil && !isNotFound(err) {
		return fmt.Errorf("cannot find device %s: %w", device, err)
	}
	if err != nil {
		// It may have got another name. A link on a device that is gone has index 0.
		if dev, err = netlink.LinkByIndex(d.pins.linkedIndex(device)); err != nil {
			return d.dropHooks(device, nil)
		}
	}
	// Out of the bridge first: between that and the end nothing passes.
	return errors.Join(unlessGone(leaveBridge(dev, d.pins)), d.dropHooks(device, dev))
}

// dropHooks removes the links of a device and, if dev is not nil, its filters.
func (d *Dataplane) dropHooks(device string, dev netlink.Link) error {
	return errors.Join(
		d.dropHook(hookVNIC, device, dev), // the same pin as hookIDS
		d.dropHook(hookMark, device, dev), // and hookTCX, hookDeliver
		d.dropHook(hookEgress, device, dev),
	)
}

func (d *Dataplane) dropHook(h hook, device string, dev netlink.Link) error {
	err := dropPinned(d.pins.linkPath(device, h.name))
	if dev != nil && h.attach != ebpf.AttachXDP {
		err = errors.Join(err, unlessGone(h.dropFilter(dev)))
	}
	return err
}

// undoStack takes back steps, the last one first.
type undoStack []func() error

func (u *undoStack) push(f func() error) { *u = append(*u, f) }

func (u *undoStack) run() error {
	var errs []error
	for _, f := range slices.Backward(*u) {
		errs = append(errs, f())
	}
	return errors.Join(errs...)
}
