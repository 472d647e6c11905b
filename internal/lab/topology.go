package lab

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"net/netip"

	"golang.org/x/sync/errgroup"
)

// Kind chooses what the hosts of a topology are.
type Kind int

// The kinds of host.
const (
	Namespaces Kind = iota // network namespaces: there at once, nothing to introspect
	Guests                 // QEMU guests
)

// Topology is the set-up of the demonstration and of the end-to-end tests: app1
// and app2 on one virtual switch, web1 on another, and between them a gateway
// namespace with one interface to each, in which nothing forwards yet.
type Topology struct {
	*Lab
	Gateway *Namespace // with the interfaces gw-apps and gw-web, and no others
	Apps    *VSwitch   // sw1, on gw-apps
	Web     *VSwitch   // sw2, on gw-web
	App1    *Host      // 10.77.0.11, fd77::11, 02:77:00:00:00:11
	App2    *Host      // …12
	Web1    *Host      // …21
}

// NewTopology makes the topology. Guests boot at the same time. On failure, and
// when the context ends while it builds, nothing is left. The logger may be nil.
func NewTopology(ctx context.Context, kind Kind, log *slog.Logger) (*Topology, error) {
	lab, err := New(log)
	if err != nil {
		return nil, err
	}
	t := &Topology{Lab: lab}
	if err := t.build(ctx, kind); err != nil {
		return nil, errors.Join(err, lab.Close())
	}
	return t, nil
}

func (t *Topology) build(ctx context.Context, kind Kind) (err error) {
	if t.Gateway, err = t.NewNamespace("gw"); err != nil {
		return err
	}
	if t.Apps, err = t.NewVSwitch("sw1", t.Gateway, "gw-apps"); err != nil {
		return err
	}
	if t.Web, err = t.NewVSwitch("sw2", t.Gateway, "gw-web"); err != nil {
		return err
	}
	add := func(_ context.Context, on *VSwitch, host Host) (*Host, error) { return on.AddHost(host) }
	if kind == Guests {
		workload, err := BuildWorkload(ctx)
		if err != nil {
			return err
		}
		add = func(ctx context.Context, on *VSwitch, host Host) (*Host, error) {
			return on.AddGuest(ctx, host, workload, t.log)
		}
	}
	group, ctx := errgroup.WithContext(ctx)
	for _, one := range []struct {
		to   **Host
		on   *VSwitch
		name string
		last byte
	}{{&t.App1, t.Apps, "app1", 0x11}, {&t.App2, t.Apps, "app2", 0x12}, {&t.Web1, t.Web, "web1", 0x21}} {
		group.Go(func() (err error) {
			*one.to, err = add(ctx, one.on, testHost(one.name, one.last))
			return err
		})
	}
	return group.Wait()
}

// testHost numbers a host: last is the last byte of its MAC and IPv6 address,
// and its two hexadecimal digits, read as decimal, end its IPv4 address.
func testHost(name string, last byte) Host {
	v6 := netip.MustParseAddr("fd77::").As16()
	v6[15] = last
	return Host{
		Name: name,
		MAC:  net.HardwareAddr{0x02, 0x77, 0, 0, 0, last},
		V4:   netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 77, 0, last>>4*10 + last&15}), 24),
		V6:   netip.PrefixFrom(netip.AddrFrom16(v6), 64),
	}
}
