package lab

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
)

// Host is a machine behind a virtual switch: a QEMU guest, or a network
// namespace that stands for one where nothing looks into its memory.
type Host struct {
	Name string
	MAC  net.HardwareAddr
	V4   netip.Prefix
	V6   netip.Prefix

	Namespace *Namespace // nil for a guest
	Interface string     // in Namespace
	Guest     *Guest     // nil for a namespace
}

// AddHost makes a namespace on the switch with the host's name, MAC address
// and addresses.
func (v *VSwitch) AddHost(host Host) (*Host, error) {
	ns, err := v.Namespace.lab.NewNamespace(host.Name)
	if err != nil {
		return nil, err
	}
	host.Namespace, host.Interface = ns, "eth0"
	if err := v.addMacvlan(host.Interface, host.MAC, ns); err != nil {
		return nil, err
	}
	return &host, errors.Join(
		ns.Sysctl("ipv6/conf/eth0/accept_ra", "0"),
		ns.Sysctl("ipv6/conf/eth0/accept_dad", "0"), // its link-local address can be used at once
		ns.SetUp(host.Interface),
		ns.AddAddress(host.Interface, host.V4),
		ns.AddAddress(host.Interface, host.V6),
	)
}

// AddGuest boots a guest on the switch with the host's name, MAC address and
// addresses. The lab closes it.
func (v *VSwitch) AddGuest(ctx context.Context, host Host, workload string, log *slog.Logger) (*Host, error) {
	return v.AddGuestAs(ctx, host, GuestConfig{Workload: workload, Log: log})
}

// AddGuestAs is AddGuest for a guest that is described further; its name and
// network cards are the host's.
func (v *VSwitch) AddGuestAs(ctx context.Context, host Host, config GuestConfig) (*Host, error) {
	tap, err := v.AddMacvtap(host.Name, host.MAC)
	if err != nil {
		return nil, err
	}
	config.Name = host.Name
	config.NICs = []NIC{{MAC: host.MAC, Tap: tap, Addresses: []netip.Prefix{host.V4, host.V6}}}
	host.Guest, err = StartGuest(ctx, config)
	if err != nil {
		return nil, fmt.Errorf("cannot add a host to %s: %w", v.Port, err)
	}
	v.Namespace.lab.OnClose(host.Guest.Close)
	return &host, nil
}
