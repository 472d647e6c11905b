package e2e_test

import "testing"

// TestMonitorMode: everything passes, and what would have happened is recorded.
func TestMonitorMode(t *testing.T) {
	g := namespaced(t, setup{Enforcement: "monitor"})
	for _, c := range []struct {
		port          int
		verdict, rule string
	}{{80, "forward", "web-udp"}, {22, "drop", "no-ssh-udp"}, {443, "check", "inspect-udp"}, {9999, "drop", "default"}} {
		absorb(t, g.Web1, c.port)
		for _, six := range []bool{false, true} {
			p := newProbe(g.App1, g.Web1, c.port)
			p.six = six
			mark, before := g.events.mark(), g.counts()
			g.passes(t, g.webWire, p)
			if e := g.events.wait(t, mark, "the decision", decisionOn(p.source)); e.Verdict != c.verdict || e.Rule != c.rule {
				t.Errorf("port %d: decided %s by %q, want %s by %q", c.port, e.Verdict, e.Rule, c.verdict, c.rule)
			}
			p = p.again()
			g.passes(t, g.webWire, p)
			if n := g.since(before, "apps/monitor"); c.verdict != "forward" && n == 0 {
				t.Errorf("port %d: XDP did not count what it would have stopped", c.port)
			}
		}
	}
}
