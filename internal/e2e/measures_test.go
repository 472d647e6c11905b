package e2e_test

import (
	"bytes"
	"strings"
	"testing"

	"github.com/vmgate/vmgate/internal/api"
)

func (g *gateway) measure(t *testing.T, action, vm string) {
	t.Helper()
	if out, exit := g.run(action, vm, "--socket", g.Socket()); exit != 0 {
		t.Fatalf("%s %s ended with %d: %s", action, vm, exit, out)
	}
}

// TestMeasures: isolate cuts a VM off, ARP and its own vSwitch included; inspect
// sends all of it through the IDS; release restores it. Nobody else notices.
func TestMeasures(t *testing.T) { eachEngine(t, testMeasures) }

func testMeasures(t *testing.T, s setup) {
	s.IDS = harmlessRule
	g := namespaced(t, s)
	app, web := serve(t, g.App2, 7000), serve(t, g.Web1, 80)
	inbound := newStream(t, g.App1, app, false)
	outbound := newStream(t, g.App2, web, true)
	bystander := newStream(t, g.App1, web, false)

	g.measure(t, "inspect", "app2")
	before := g.counts()
	inbound.moves(t)
	outbound.moves(t)
	now := g.counts()
	for _, kind := range []string{"apps/check", "web/check", "ids-in/ids-return", "ids-out/ids-return"} {
		if now[kind] == before[kind] {
			t.Errorf("inspected, %s does not grow", kind)
		}
	}

	g.measure(t, "isolate", "app2")
	inbound.stalls(t)
	outbound.stalls(t)
	apps := listen(t, g.Apps.Namespace, g.Apps.Port)
	before = g.counts()
	in, out := newProbe(g.App1, g.App2, 7000), newProbe(g.App2, g.Web1, 80)
	in.send(t)
	out.send(t)
	sendRaw(t, g.App1, arp(t, g.App1.MAC, g.App1.V4.Addr().AsSlice(), g.App2.V4.Addr().AsSlice(), broadcast))
	sendRaw(t, g.App1, arp(t, g.App1.MAC, g.App1.V4.Addr().AsSlice(), g.App2.V4.Addr().AsSlice(), g.App2.MAC))
	sendRaw(t, g.App2, arp(t, g.App2.MAC, g.App2.V4.Addr().AsSlice(), g.Web1.V4.Addr().AsSlice(), broadcast))
	g.awaitCount(t, before, "apps/drop-verdict", 5)
	g.fence(t, g.webWire, g.App1)
	if got := apps.seen(sentTo(g.App2.MAC)); len(got) > 0 {
		t.Errorf("%d frames came to isolated app2: %x", len(got), got[0])
	}
	if got := apps.seen(func(f []byte) bool {
		return f[12] == 8 && f[13] == 6 && bytes.Contains(f[28:], g.App2.V4.Addr().AsSlice())
	}); len(got) > 0 {
		t.Errorf("%d ARP frames speak of isolated app2: %x", len(got), got[0])
	}
	for wire, p := range map[*capture]probe{apps: in, g.webWire: out} {
		if len(wire.seen(carries(p.payload))) > 0 {
			t.Errorf("passed: %s", p)
		}
	}
	if vm := g.vm("app2"); vm.Verdict != "drop" || vm.Cause != "operator" {
		t.Errorf("app2 is %s (%s)", vm.Verdict, vm.Cause)
	}
	bystander.moves(t)

	// Less strict: refused, and what stands stays.
	if out, exit := g.run("inspect", "app2", "--socket", g.Socket()); exit != 5 || !strings.Contains(out, "release it first") {
		t.Errorf("inspect on an isolated VM ended with %d: %s", exit, out)
	}
	if vm := g.vm("app2"); vm.Verdict != "drop" {
		t.Errorf("inspect makes an isolated VM %s", vm.Verdict)
	}

	g.measure(t, "release", "app2")
	inbound.moves(t)
	outbound.moves(t)
	before = g.counts()
	inbound.moves(t)
	outbound.moves(t)
	if n := g.since(before, "apps/check"); n > 0 {
		t.Errorf("released, %d packets are still checked", n)
	}
	inbound.finish(t) // whole, though what was sent meanwhile was sent again
	outbound.finish(t)
	if n := bystander.finish(t); n > 0 {
		t.Errorf("the bystander lost %d segments", n)
	}
}

func TestMeasures_OnAnUnknownVMAreRefused(t *testing.T) {
	g := namespaced(t, setup{})
	if out, exit := g.run("isolate", "nobody", "--socket", g.Socket()); exit != 4 || !containsAll(out, "nobody") {
		t.Errorf("ended with %d: %s", exit, out)
	}
	if err := g.Client.Measure(t.Context(), api.Measure{Action: "explode", VM: "app1"}); err == nil {
		t.Error("an unknown measure was taken")
	}
}
