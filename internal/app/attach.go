package app

import (
	"errors"
	"fmt"

	"github.com/vmgate/vmgate/pkg/loader"
)

// bridgeOf names the gateway's own bridge for a layer 2 group.
func bridgeOf(group uint32) string { return fmt.Sprintf("vmg-br%d", group) }

// attach makes the bridges and attaches the programs to the vNICs that are
// there; those that are not are attached when they appear.
func (a *App) attach(s *state) error {
	if err := a.ids.tell(s.cfg); err != nil {
		return err
	}
	for _, group := range s.inv.groups() {
		if err := loader.EnsureBridge(bridgeOf(group), s.cfg.Gateway.Pins); err != nil {
			return err
		}
	}
	states, err := a.dp.SetPorts(s.ports())
	for _, port := range states {
		a.reportPort(port)
	}
	return errors.Join(err, a.bridgeAddresses(s))
}

// ports lists the ports that the configuration asks for.
func (s *state) ports() []loader.Port {
	var ports []loader.Port
	for _, seg := range s.inv.segments {
		ports = append(ports, loader.Port{
			ID: seg.number, Device: seg.VNIC, Kind: loader.PortVNIC, Segment: seg.number, Group: seg.group,
			HasRouter: s.inv.hasRouter(seg), Reflect: seg.Reflect || seg.Proxy, Proxy: seg.Proxy, Answer: seg.Answer, Multicast: seg.Multicast == "flood", Tagged: s.inv.hasVLANs(seg), Bridge: bridgeOf(seg.group),
			Datapath: loader.Datapath(seg.Datapath),
		})
	}
	for number, pair := range idsPorts(s.cfg) {
		group := s.inv.groups()[0]
		ports = append(ports,
			loader.Port{ID: idsInPort(number), Device: pair.In, Kind: loader.PortIDSIn, Group: group},
			loader.Port{ID: idsOutPort(number), Device: pair.Out, Kind: loader.PortIDSOut, Group: group})
	}
	return ports
}

// bridgeAddresses enters the known MAC addresses into the bridges, so that they
// flood nothing and learn nothing wrong.
func (a *App) bridgeAddresses(s *state) error {
	attached := map[uint32]bool{}
	for _, port := range a.dp.Ports() {
		attached[port.ID] = port.Attached
	}
	entries := map[uint32][]loader.FDBEntry{}
	for _, n := range s.inv.byID {
		if !attached[n.segment.number] {
			continue
		}
		for _, mac := range n.macs {
			entries[n.segment.group] = append(entries[n.segment.group], loader.FDBEntry{MAC: loader.MAC(mac), Device: n.segment.VNIC})
		}
	}
	var errs []error
	for _, group := range s.inv.groups() {
		errs = append(errs, loader.SetBridgeFDB(bridgeOf(group), entries[group]))
	}
	return errors.Join(errs...)
}

// portChanged follows a vNIC that came or went.
func (a *App) portChanged(port loader.PortState) {
	a.reportPort(port)
	if !port.Attached {
		return
	}
	if err := a.bridgeAddresses(a.state.Load()); err != nil {
		a.log.Error("cannot tell the bridge the known addresses", "error", err)
	}
}

func (a *App) reportDatapath(port loader.PortState) {
	text := fmt.Sprintf("port %s attached by %s", port.Device, port.Datapath)
	switch {
	case port.Fallback != nil:
		a.log.Warn("no native XDP on this vNIC, so it is TCX: fewer packets a second", "device", port.Device, "why", port.Fallback)
		text += fmt.Sprintf(", since XDP is not possible: %v", port.Fallback)
	case port.Datapath == loader.DatapathXDPGeneric:
		a.log.Warn("XDP in the stack, as configured: it is slower than tcx", "device", port.Device)
	}
	a.journal.note("config", text)
}

func (a *App) reportPort(port loader.PortState) {
	switch {
	case port.Attached:
		a.reportDatapath(port)
	case errors.Is(port.Err, loader.ErrNoDevice):
		a.log.Warn("vNIC is missing; it is attached when it appears", "device", port.Device)
		a.journal.note("config", "vNIC "+port.Device+" is missing")
	default:
		a.log.Error("port not attached: nothing passes there", "device", port.Device, "error", port.Err)
	}
}
