package loader

import (
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// engine opens an AF_PACKET socket on one of the engine's ends.
func (g *gateway) engine(p IDSPorts, name string) *station {
	g.t.Helper()
	ns, err := openNetNS(p.NetNS)
	must(g.t, err)
	s := &station{t: g.t, dev: name, ns: ns}
	must(g.t, inNetNS(ns, func() error {
		dev, err := netlink.LinkByName(name)
		if err != nil {
			return err
		}
		return s.listen(dev.Attrs().Index)
	}))
	g.t.Cleanup(s.close)
	return s
}

func TestIDSPorts_CheckedFlowGoesThroughTheEngine(t *testing.T) {
	g := newGateway(t)
	p := idsPortsInPlace(t)
	must(t, EnsureIDSPorts(p))
	ports := append([]Port{{ID: 3, Device: p.In, Kind: PortIDSIn, Group: 1}, {ID: 4, Device: p.Out, Kind: PortIDSOut, Group: 1}}, testPorts...)
	g.attach(ports)
	settings := testSettings
	settings.IDS[0] = IDSInstance{In: 3, Out: 4}
	must(t, g.d.SetSettings(settings))
	in, out := g.engine(p, p.EngineIn), g.engine(p, p.EngineOut)
	must(t, g.d.SetOwner(7, Owner{Verdict: check, VM: 1}))

	for _, s := range []*station{g.vm[0], g.vm[1], in, out} {
		s.ready()
	}
	g.vm[0].send(g.frame(1, false))
	in.receive(g.frame(1, false))
	out.send(g.frame(1, false))
	g.vm[1].receive(g.frame(1, false))

	g.vm[1].send(g.frame(2, true))
	out.receive(g.frame(2, true))
	in.send(g.frame(2, true))
	g.vm[0].receive(g.frame(2, true))

	g.waitCount(1, "check", 1)
	g.waitCount(4, "ids-return", 1)
}

func TestSetPorts_ADeviceMayBecomeAnotherKindOfPort(t *testing.T) {
	g := newGateway(t)
	g.attach([]Port{{ID: 5, Device: "vnic.0", Kind: PortIDSIn}})
	if ids := g.linkIDs(); len(ids) != 2 || ids["vnic:0-xdp"] == 0 || ids["vnic:0-ingress"] == 0 {
		t.Errorf("links %v, want those of XDP and of ingress alone", ids)
	}
	dev := byName(t, "vnic.0")
	if dev.Attrs().MasterIndex != 0 || dev.Attrs().Flags&unix.IFF_UP == 0 {
		t.Errorf("master %d, flags %v", dev.Attrs().MasterIndex, dev.Attrs().Flags)
	}
	g.nothingOn("vnic-1")
	g.attach(testPorts)
	g.passes(1)
}
