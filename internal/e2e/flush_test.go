package e2e_test

import (
	"os/exec"
	"testing"
	"time"
)

// TestFlushedFirewall_NothingUndecidedCrosses: the kernel's FORWARD hook is no
// choke point, the gateway's egress is. The daemon puts its rules back.
func TestFlushedFirewall_NothingUndecidedCrosses(t *testing.T) {
	if _, err := exec.LookPath("nft"); err != nil {
		t.Skip("no nft here: ", err)
	}
	g := namespaced(t, setup{})
	web := serve(t, g.Web1, 80)
	established := newStream(t, g.App1, web, false)

	// New flows start all the time, before, while and after.
	var sent []probe
	begin := func(n int) {
		for range n {
			p := newProbe(g.App1, g.Web1, 22) // no rule allows it
			p.send(t)
			sent = append(sent, p)
		}
	}
	begin(10)
	before := g.counts()
	if out, err := g.Gateway.Command(t.Context(), "nft", "flush", "ruleset").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	sent = nil
	for _, six := range []bool{false, true} {
		for _, tags := range [][]uint16{nil, {5}, {5, 6}} {
			p := newProbe(g.App1, g.Web1, 22)
			p.six, p.tags = six, tags
			p.send(t)
			sent = append(sent, p)
		}
	}
	begin(30)
	// Untagged, they reach the bridge's egress, which lets none by: all of them, but
	// if the daemon puts its rules back among them, which then drops them itself.
	g.awaitCount(t, before, "web/drop-egress", 1)
	// The rules come back, and what passes then fences off what was sent before.
	var err error
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
		if _, err = echo(g.App1, address(g.Web1, 80, false), 1000); err == nil {
			break
		}
	}
	if err != nil {
		t.Errorf("the rules do not come back: %v", err)
	}
	for _, p := range sent {
		if got := g.webWire.seen(carries(p.payload)); len(got) > 0 {
			t.Errorf("crossed: %s", p)
		}
	}
	established.moves(t)
	if n := established.finish(t); n > 0 {
		t.Errorf("%d segments of the established stream were lost", n)
	}
}
