package loader

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"

	"github.com/cilium/ebpf/link"
)

// SetPorts makes ports the set of attached devices: it attaches the programs to
// those that are there, adopting the links that an earlier daemon pinned, and
// detaches devices that are not in the list (any more). The state of each port,
// in the order of the list, says whether it is attached and why not; a device
// that is missing or refuses the programs is no error of the call. An error
// means that the list makes no sense, and nothing was done, or that a device
// that is no port any more could not be detached.
func (d *Dataplane) SetPorts(ports []Port) ([]PortState, error) {
	if err := checkPorts(ports); err != nil {
		return nil, fmt.Errorf("cannot set ports: %w", err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	err := d.detachOthers(ports)
	d.ports = d.ports[:0]
	for _, p := range ports {
		d.ports = append(d.ports, d.attach(p))
	}
	return slices.Clone(d.ports), err
}

// Ports returns the wanted ports and what became of them.
func (d *Dataplane) Ports() []PortState {
	d.mu.Lock()
	defer d.mu.Unlock()
	return slices.Clone(d.ports)
}

// detachOthers ends all that pins or maps say is attached and ports does not have.
func (d *Dataplane) detachOthers(ports []Port) error {
	filled, err := filledPorts(d.maps["ports"])
	if err != nil {
		return err
	}
	pinned, err := d.pins.linkedDevices()
	if err != nil {
		return err
	}
	others := map[string]bool{}
	for _, device := range slices.Concat(pinned, slices.Collect(maps.Values(filled))) {
		others[device] = true
	}
	var errs []error
	for _, p := range ports {
		delete(others, p.Device)
		// An id that had another device is filled anew when its device is attached.
		if filled[p.ID] == p.Device {
			delete(filled, p.ID)
		}
	}
	for id := range filled {
		errs = append(errs, d.clearPort(id))
	}
	for device := range others {
		d.log.Info("port detached", "device", device)
		errs = append(errs, d.detach(device))
	}
	return errors.Join(errs...)
}

// linkedIndex returns the interface index that the pinned links of a device are
// at, 0 for none.
func (p pinDir) linkedIndex(device string) int {
	for _, h := range []hook{hookVNIC, hookTCX} {
		l, err := link.LoadPinnedLink(p.linkPath(device, h.name), nil)
		if err != nil {
			continue
		}
		info, err := l.Info()
		_ = l.Close()
		if err != nil {
			continue
		}
		if x := info.XDP(); x != nil {
			return int(x.Ifindex)
		}
		if t := info.TCX(); t != nil {
			return int(t.Ifindex)
		}
	}
	return 0
}

// linkedDevices returns the devices that have pinned links.
func (p pinDir) linkedDevices() ([]string, error) {
	pins, err := os.ReadDir(p.links())
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("cannot list the pinned links: %w", err)
	}
	var devices []string
	for _, pin := range pins {
		if device, hook := splitLink(pin.Name()); hook != "" {
			devices = append(devices, device)
		}
	}
	slices.Sort(devices)
	return slices.Compact(devices), nil
}
