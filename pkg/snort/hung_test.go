package snort

import (
	"testing"

	"golang.org/x/sys/unix"
)

func TestKill_AHungEngineIsReplaced(t *testing.T) {
	eachEngine(t, func(t *testing.T, engine string) {
		t.Parallel()
		w := newWire(t)
		r := run(t, configFor(t, engine, w, synFlood))
		first := r.await(PhaseUp)
		must(t, unix.Kill(first.PID, unix.SIGSTOP))
		r.Kill(first.PID+1, "another")
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
	})
}
