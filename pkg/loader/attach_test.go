package loader

import (
	"errors"
	"maps"
	"slices"
	"testing"

	"github.com/safchain/ethtool"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"github.com/vmgate/vmgate/bpf"
)

func TestAttach_DecidedFlowPassesBothWays(t *testing.T) {
	g := newGateway(t)
	g.passes(1)
	g.waitCount(1, "forward", 1)
	g.waitCount(2, "forward", 1)
	f, found, err := g.d.Flow(g.key)
	must(t, err)
	if !found || f.Dir[0].Packets != 1 || f.Dir[1].Packets != 1 {
		t.Errorf("flow found %v, counts %d and %d packets, want 1 and 1", found, f.Dir[0].Packets, f.Dir[1].Packets)
	}
}

func TestSetOwner_OneWriteEndsTheFlow(t *testing.T) {
	g := newGateway(t)
	g.passes(1)
	must(t, g.d.SetOwner(7, Owner{Verdict: drop, VM: 1, PID: 42}))
	g.vm[0].send(g.frame(2, false))
	g.waitCount(1, "drop-verdict", 1)
	must(t, g.d.SetOwner(7, Owner{Verdict: forward, VM: 1, PID: 42}))
	g.vm[0].send(g.frame(3, false))
	g.vm[1].receiveNothingUntil(g.frame(2, false), g.frame(3, false))
}

func TestSetPorts_AdoptsWithTrafficGoingOn(t *testing.T) {
	g := newGateway(t)
	before := g.linkIDs()
	if g.d.useClsact {
		t.Skip("the kernel has no TCX links")
	}
	want := []string{"vnic-1-egress", "vnic-1-ingress", "vnic-1-xdp", "vnic:0-egress", "vnic:0-ingress", "vnic:0-xdp"}
	if got := slices.Sorted(maps.Keys(before)); !slices.Equal(got, want) {
		t.Fatalf("links %v, want %v", got, want)
	}
	g.underTraffic(func() {
		g.open() // the first daemon's descriptors are still there: as if it hung
		for _, st := range g.attach(testPorts) {
			if !st.Adopted {
				t.Errorf("port %s was not adopted", st.Device)
			}
		}
	})
	if after := g.linkIDs(); !maps.Equal(before, after) {
		t.Errorf("links before %v, after %v", before, after)
	}
}

func TestSetPorts_ChangesWhatAPortIsInPlace(t *testing.T) {
	g := newGateway(t)
	g.passes(1)
	before := g.linkIDs()
	renumbered := slices.Clone(testPorts)
	renumbered[0].ID = 9
	if states := g.attach(renumbered); !states[0].Adopted {
		t.Error("the port was not adopted")
	}
	g.vm[0].send(g.frame(2, false)) // of a flow that comes in by port 1: it is another's now
	g.waitCount(9, "drop-spoof", 1)
	if after := g.linkIDs(); !maps.Equal(before, after) {
		t.Errorf("links before %v, after %v", before, after)
	}
	var old wirePort
	must(t, g.d.maps["ports"].Lookup(uint32(1), &old))
	if old != (wirePort{}) {
		t.Errorf("the old id is still there: %+v", old)
	}
}

func TestSetPorts_LinkOfAFormerDeviceIsNotAdopted(t *testing.T) {
	g := newGateway(t)
	g.passes(1)
	must(t, g.d.Close())
	must(t, netlink.LinkDel(byName(t, "vnic-1")))
	g.vm[1].plug("vnic-1") // the name alone is the same
	g.open()
	states := g.attach(testPorts)
	if !states[0].Adopted || states[1].Adopted {
		t.Errorf("adopted %v and %v, want the first alone", states[0].Adopted, states[1].Adopted)
	}
	g.decide() // the station has another MAC now
	g.passes(2)
}

func TestSetPorts_ARenamedDeviceLeavesTheBridgeBeforeItsFilters(t *testing.T) {
	g := newGateway(t)
	must(t, netlink.LinkSetDown(byName(t, "vnic.0"))) // kernels before 6.2 rename nothing that is up
	must(t, netlink.LinkSetName(byName(t, "vnic.0"), "elsewhere"))
	states, err := g.d.SetPorts(testPorts)
	must(t, err)
	if states[0].Attached || !errors.Is(states[0].Err, ErrNoDevice) || !states[1].Attached {
		t.Errorf("states %+v", states)
	}
	g.nothingOn("elsewhere")
}

func TestSetPorts_MakesTheDeviceFit(t *testing.T) {
	g := newGateway(t)
	for _, p := range testPorts {
		dev := byName(t, p.Device)
		const want = unix.IFF_UP | unix.IFF_PROMISC
		if dev.Attrs().RawFlags&want != want {
			t.Errorf("%s has flags %#x", p.Device, dev.Attrs().RawFlags)
		}
		if got := readFile(t, "/proc/sys/net/ipv6/conf/"+p.Device+"/disable_ipv6"); got != "1" {
			t.Errorf("%s has disable_ipv6 %s", p.Device, got)
		}
		e, err := ethtool.NewEthtool()
		must(t, err)
		on, err := activeOffloads(e, p.Device, slices.Concat(rxMerging, rxVLAN, txVLAN))
		e.Close()
		if err != nil || len(on) > 0 {
			t.Errorf("%s has %v on (%v)", p.Device, on, err)
		}
		info, err := netlink.LinkGetProtinfo(dev)
		must(t, err)
		if info.Learning || info.Flood || info.Hairpin != p.Reflect {
			t.Errorf("%s is a bridge port with %+v", p.Device, info)
		}
		var entry wirePort
		must(t, g.d.maps["ports"].Lookup(p.ID, &entry))
		if int(entry.Ifindex) != dev.Attrs().Index || cstr(entry.Name[:]) != p.Device ||
			(entry.Flags == bpf.VmgatePortFlagPORT_REFLECT) != p.Reflect {
			t.Errorf("map ports has %+v for %s", entry, p.Device)
		}
	}
}
