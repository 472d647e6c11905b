package loader

import (
	"errors"
	"log/slog"
	"maps"
	"slices"

	"github.com/cilium/ebpf"
)

// Remove ends enforcement of the gateway that is pinned under pins: it takes
// devices out of the gateway's bridge, detaches programs, deletes the bridge and
// all pins. It works without a daemon, whatever build made the pins, in the
// network namespace where the devices are. Removing what is not there is no
// error.
func Remove(pins string) error {
	d := &Dataplane{pins: pinDir(pins), log: slog.New(slog.DiscardHandler)}
	devices, err := d.pins.attachedDevices()
	errs := []error{err}
	for _, device := range devices {
		errs = append(errs, d.detach(device))
	}
	errs = append(errs, removeBridges(d.pins), d.pins.remove())
	return errors.Join(errs...)
}

// attachedDevices returns the devices that the pinned links and, for filters
// that have no links, the pinned ports map name.
func (p pinDir) attachedDevices() ([]string, error) {
	devices, err := p.linkedDevices()
	if err != nil {
		return nil, err
	}
	m, err := ebpf.LoadPinnedMap(p.mapPath("ports"), &ebpf.LoadPinOptions{ReadOnly: true})
	if err != nil {
		return devices, nil // no map, or none that we could read: the links are all there is
	}
	defer m.Close()
	if filled, err := filledPorts(m); err == nil {
		devices = slices.AppendSeq(devices, maps.Values(filled))
	}
	slices.Sort(devices)
	return slices.Compact(devices), nil
}
