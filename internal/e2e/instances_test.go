package e2e_test

import (
	"syscall"
	"testing"
)

// TestIDS_SeveralEnginesShareTheFlows: both directions of each meet in one of them,
// and the end of one concerns its own flows alone.
func TestIDS_SeveralEnginesShareTheFlows(t *testing.T) {
	eachEngine(t, func(t *testing.T, s setup) {
		s.IDS, s.Instances = harmlessRule, 2
		g := namespaced(t, s)
		absorb(t, g.Web1, 443)
		await(t, "both engines are up", func() bool {
			status, err := g.Client.Status(t.Context())
			return err == nil && status.IDS.State == "up"
		})
		var of [2][]probe // the flows by the engine that they take
		for range 24 {
			p, before := newProbe(g.App1, g.Web1, 443), g.counts()
			absorb(t, g.App1, p.source)
			g.passes(t, g.webWire, p) // the held packet
			engine := 0
			if g.since(before, "ids-out1/ids-return") > 0 {
				engine = 1
			}
			back := p.answer()
			g.passes(t, g.appsWire, back)
			there, answered := [2]string{"ids-out", "ids-out1"}[engine], [2]string{"ids-in", "ids-in1"}[engine]
			if n, m := g.since(before, there+"/ids-return"), g.since(before, answered+"/ids-return"); n != 1 || m != 1 {
				t.Errorf("%s: %d came out of %s and %d out of %s", p, n, there, m, answered)
			}
			p = p.again()
			g.passes(t, g.webWire, p) // by XDP
			if n := g.since(before, there+"/ids-return"); n != 2 {
				t.Errorf("%s: %d came out of %s", p, n, there)
			}
			of[engine] = append(of[engine], p)
		}
		if len(of[0]) == 0 || len(of[1]) == 0 {
			t.Fatalf("%d flows went to one and %d to the other", len(of[0]), len(of[1]))
		}
		status, err := g.Client.Status(t.Context())
		must(t, err)
		must(t, syscall.Kill(status.IDS.PID, syscall.SIGSTOP))
		await(t, "the stopped engine is noticed", func() bool {
			status, err := g.Client.Status(t.Context())
			return err == nil && status.IDS.State != "up"
		})
		// The other's go on, whether that one is back already or not.
		for _, p := range of[1] {
			g.passes(t, g.webWire, p.again())
		}
		await(t, "both are up again", func() bool {
			status, err := g.Client.Status(t.Context())
			return err == nil && status.IDS.State == "up"
		})
		for _, p := range of[0] {
			g.passes(t, g.webWire, p.again())
		}
		// Its port goes: it is made anew, and nothing passes meanwhile but by an engine.
		must(t, g.Gateway.Delete("ids-in1"))
		before, p := g.counts(), of[1][0]
		await(t, "its flows stop", func() bool {
			p.again().send(t)
			return g.since(before, "apps/drop-ids-down") > 0
		})
		await(t, "the port and the engine are back", func() bool {
			p = p.again()
			p.send(t)
			return g.since(before, "ids-out1/ids-return") > 0
		})
		g.webWire.wait(t, p.String(), carries(p.payload))
		if n := g.since(before, "apps/open"); n > 0 {
			t.Errorf("%d packets passed without an engine", n)
		}
	})
}
