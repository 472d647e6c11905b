package loader

import (
	"maps"
	"slices"
	"testing"
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
