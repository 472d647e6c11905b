package snort

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestKill_AHungEngineIsReplaced(t *testing.T) {
	t.Parallel()
	w := newWire(t)
	r := run(t, suricataConfigFor(t, w, synFlood))
	first := r.await(PhaseUp)
	busy, err := r.Busy(first.PID)
	if err != nil || busy <= 0 {
		t.Fatalf("busy for %v (%v)", busy, err)
	}
	must(t, unix.Kill(first.PID, unix.SIGSTOP))
	r.Kill(first.PID+1, "another")
	before, err := r.Busy(first.PID)
	must(t, err)
	time.Sleep(100 * time.Millisecond) // while it does nothing: there is no event to wait for
	after, err := r.Busy(first.PID)
	must(t, err)
	if after-before > 10*time.Millisecond { // it takes a moment until it has stopped
		t.Errorf("stopped, it was busy for %v", after-before)
	}
	if s := r.State(); s.PID != first.PID || s.Phase != PhaseUp {
		t.Fatalf("the wrong pid ended it: %+v", s)
	}
	r.Kill(first.PID, "it hangs")
	if s := r.await(PhaseDown); s.Detail != "it hangs" {
		t.Errorf("detail %q", s.Detail)
	}
	if s := r.await(PhaseUp); s.PID == first.PID || s.Restarts != 1 {
		t.Errorf("after it: %+v", s)
	}
	if _, err := r.Busy(first.PID); err == nil {
		t.Error("the dead one is still busy")
	}
}
