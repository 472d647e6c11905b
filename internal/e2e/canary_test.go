package e2e_test

import (
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vmgate/vmgate/internal/event"
)

// TestCanary_AHungEngine: what is to be checked stops, or goes on where the operator
// chose so, and the engine is replaced.
func TestCanary_AHungEngine(t *testing.T) {
	eachEngine(t, func(t *testing.T, s setup) {
		for _, knob := range []string{"closed", "open"} {
			t.Run(knob, func(t *testing.T) { checkHung(t, s, knob) })
		}
	})
}

func checkHung(t *testing.T, s setup, knob string) {
	s.IDS, s.Failure = harmlessRule, "{ids: "+knob+"}"
	g := namespaced(t, s)
	checked := newStream(t, g.App1, serve(t, g.Web1, 443), false)
	direct := newStream(t, g.App1, serve(t, g.Web1, 80), false)
	status, err := g.Client.Status(t.Context())
	must(t, err)
	was, mark, before := status.IDS, g.events.mark(), g.counts()
	began := time.Now()
	must(t, syscall.Kill(was.PID, syscall.SIGSTOP))
	e := g.events.wait(t, mark, "the hang", func(e event.Event) bool { return e.Type == "ids" })
	if took := time.Since(began); took > 300*time.Millisecond { // a tenth of it on a quiet machine
		t.Errorf("noticed after %v", took)
	} else {
		t.Logf("noticed after %v: %s", took, e.Message)
	}
	if !strings.Contains(e.Message, "hangs") {
		t.Errorf("the first event says %q", e.Message)
	}
	g.wantIDSKnob(t, knob, before)
	direct.moves(t)
	is := g.awaitAnotherEngine(t, was)
	t.Logf("up again after %v", time.Since(began))
	if is.Restarts != was.Restarts+1 {
		t.Errorf("%d restarts were counted, after %d", is.Restarts, was.Restarts)
	}
	if err := syscall.Kill(was.PID, 0); err != syscall.ESRCH {
		t.Errorf("the hung one is still there: %v", err)
	}
	before = g.counts()
	checked.moves(t)
	g.awaitCount(t, before, "ids-out/ids-return", 1)
	if n := direct.finish(t); n > 0 {
		t.Errorf("the flow beside it lost %d segments", n)
	}
}

// TestCanary_OfAGuestGoesNowhere: not to the engine, though all that the VM sends is
// to be checked, and not to its neighbour.
func TestCanary_OfAGuestGoesNowhere(t *testing.T) {
	g := namespaced(t, setup{IDS: harmlessRule})
	g.measure(t, "inspect", "app1")
	before := g.counts()
	const payload = "<a guest's canary>"
	frame := append(append(append([]byte{}, g.Web1.MAC...), g.App1.MAC...), 0x88, 0xb5)
	frame = append(append(frame, payload...), make([]byte, 60-14-len(payload))...)
	sendRaw(t, g.App1, frame)
	g.awaitCount(t, before, "apps/drop-ethertype", 1)
	if n := g.since(before, "apps/check"); n > 0 {
		t.Errorf("%d frames went to the engine", n)
	}
	if len(g.webWire.seen(carries(payload))) > 0 {
		t.Error("it arrived")
	}
	g.awaitCount(t, before, "ids-in/canary", 2) // the daemon's own go on
	g.awaitCount(t, before, "ids-out/canary", 2)
	if status, err := g.Client.Status(t.Context()); err != nil || status.IDS.State != "up" {
		t.Errorf("the engine is %+v (%v)", status.IDS, err)
	}
}
