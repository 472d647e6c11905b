package e2e_test

import (
	"syscall"
	"testing"

	"github.com/vmgate/vmgate/internal/api"
	"github.com/vmgate/vmgate/internal/event"
)

// TestIDS_Killed: what is to be checked stops, or goes on where the operator
// chose so, until the engine is back by itself.
func TestIDS_Killed(t *testing.T) {
	for _, knob := range []string{"closed", "open"} {
		t.Run(knob, func(t *testing.T) {
			g := namespaced(t, setup{IDS: harmlessRule, Failure: "{ids: " + knob + "}"})
			checked := newStream(t, g.App1, serve(t, g.Web1, 443), false)
			direct := newStream(t, g.App1, serve(t, g.Web1, 80), false)
			status, err := g.Client.Status(t.Context())
			must(t, err)
			was, mark, before := status.IDS, g.events.mark(), g.counts()
			must(t, syscall.Kill(was.PID, syscall.SIGKILL))
			g.events.wait(t, mark, "the engine's end", func(e event.Event) bool { return e.Type == "ids" })
			g.wantIDSKnob(t, knob, before)
			direct.moves(t)
			is := g.awaitAnotherEngine(t, was)
			if is.Restarts != was.Restarts+1 {
				t.Errorf("%d restarts were counted, after %d", is.Restarts, was.Restarts)
			}
			before = g.counts()
			checked.moves(t)
			g.awaitCount(t, before, "ids-out/ids-return", 1)
			if n := direct.finish(t); n > 0 {
				t.Errorf("the flow beside it lost %d segments", n)
			}
		})
	}
}

// TestIDS_AlertOnAVMWithoutMemoryEndsThatFlowOnly: there is no process to blame.
func TestIDS_AlertOnAVMWithoutMemoryEndsThatFlowOnly(t *testing.T) {
	g := namespaced(t, setup{IDS: `drop udp any any -> any any (msg:"e2e evil"; content:"e2e-evil"; sid:7000001; rev:1;)` + "\n"})
	absorb(t, g.Web1, 443)
	guilty, innocent := newProbe(g.App1, g.Web1, 443), newProbe(g.App1, g.Web1, 443)
	g.passes(t, g.webWire, guilty)
	g.passes(t, g.webWire, innocent)

	mark := g.events.mark()
	evil := guilty.again()
	evil.payload += "e2e-evil"
	evil.send(t)
	e := g.events.wait(t, mark, "the alert", func(e event.Event) bool { return e.Type == "alert" })
	if e.Alert.SID != 7000001 || e.SrcVM != "app1" || int(e.SrcPort) != guilty.source || e.SrcProcess != nil {
		t.Errorf("alert %+v of %s:%d, process %v", e.Alert, e.SrcVM, e.SrcPort, e.SrcProcess)
	}
	await(t, "the flow is ended", func() bool { return g.flowOf("app1", guilty.source).Verdict == "drop" })
	if f := g.flowOf("app1", guilty.source); f.Cause != "alert" {
		t.Errorf("the flow is dropped for %s", f.Cause)
	}
	before := g.counts()
	later := guilty.again()
	later.send(t)
	g.awaitCount(t, before, "apps/drop-verdict", 1)
	g.passes(t, g.webWire, innocent.again())
	g.passes(t, g.webWire, newProbe(g.App1, g.Web1, 443))
	for _, p := range []probe{evil, later} {
		if len(g.webWire.seen(carries(p.payload))) > 0 {
			t.Errorf("arrived: %s", p)
		}
	}
	if vm := g.vm("app1"); vm.Verdict != "forward" {
		t.Errorf("app1 as a whole is %s", vm.Verdict)
	}
}

// wantIDSKnob awaits that packets of inspected flows are treated as failure.ids
// says, and that none passes where it says closed. before are counts of before the
// engine's end.
func (g *gateway) wantIDSKnob(t *testing.T, knob string, before counts) {
	t.Helper()
	kind := "apps/drop-ids-down"
	if knob == "open" {
		kind = "apps/open"
	}
	g.awaitCount(t, before, kind, 1)
	if knob == "closed" && g.since(before, "apps/open") > 0 {
		t.Error("packets passed without the engine")
	}
}

// awaitAnotherEngine waits for an engine that is up and not the one that was.
func (g *gateway) awaitAnotherEngine(t *testing.T, was api.IDSStatus) api.IDSStatus {
	t.Helper()
	var is api.IDSStatus
	await(t, "another engine is up", func() bool {
		status, err := g.Client.Status(t.Context())
		is = status.IDS
		return err == nil && is.State == "up" && is.PID != was.PID && is.PID != 0
	})
	return is
}
