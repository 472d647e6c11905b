package app

import (
	"math/rand/v2"
	"testing"
	"time"
)

// engineModel is an engine as its watch sees it, over many ticks.
type engineModel struct {
	w       watch
	cpu     time.Duration
	elapsed time.Duration
}

// run ticks for a time; life says what comes through in the next tick, and load
// is the share of a processor that the engine uses.
func (m *engineModel) run(limit time.Duration, load float64, life func() [directions]bool) (hung string) {
	for end := m.elapsed + limit; m.elapsed < end && hung == ""; {
		waited := m.w.every()
		m.elapsed += waited
		m.cpu += time.Duration(load * float64(waited))
		hung = m.w.tick(waited, life(), m.cpu)
	}
	return hung
}

func always(in, out bool) func() [directions]bool {
	return func() [directions]bool { return [directions]bool{in, out} }
}

func provenEngine(t *testing.T) *engineModel {
	t.Helper()
	m := &engineModel{}
	if hung := m.run(time.Minute, 0.1, always(true, true)); hung != "" || !m.w.up() {
		t.Fatalf("a good engine: up %t, %q", m.w.up(), hung)
	}
	m.elapsed = 0
	return m
}

func TestWatch_AnEngineThatDoesNothingIsHungAfterASecond(t *testing.T) {
	for name, life := range map[string]func() [directions]bool{
		"stopped": always(false, false), "one worker": always(true, false), "the other": always(false, true),
	} {
		m := provenEngine(t)
		if hung := m.run(time.Minute, 0, life); hung == "" || m.elapsed != time.Second {
			t.Errorf("%s: %q after %v", name, hung, m.elapsed)
		}
	}
}

func TestWatch_AnEndlessLoopIsHungAfterTen(t *testing.T) {
	m := provenEngine(t)
	if hung := m.run(time.Minute, 1, always(false, false)); hung == "" || m.elapsed < 9*time.Second || m.elapsed > 11*time.Second {
		t.Errorf("%q after %v", hung, m.elapsed)
	}
}

// At nine times what it can take, while it drops all that it takes.
func TestWatch_OverloadIsNoHang(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	m := provenEngine(t)
	if hung := m.run(10*time.Minute, 0.8, func() [directions]bool {
		return [directions]bool{r.IntN(9) == 0, r.IntN(9) == 0}
	}); hung != "" {
		t.Errorf("%s after %v", hung, m.elapsed)
	}
}

func TestWatch_ANewEngineHasTimeToBegin(t *testing.T) {
	m := &engineModel{}
	if hung := m.run(9*time.Second, 0, always(false, false)); hung != "" || m.w.up() {
		t.Errorf("up %t, %q", m.w.up(), hung)
	}
	if m.run(100*time.Millisecond, 0, always(true, false)); m.w.up() {
		t.Error("up by one direction")
	}
	if m.run(100*time.Millisecond, 0, always(false, true)); !m.w.up() {
		t.Error("not up by both")
	}
	m = &engineModel{}
	if hung := m.run(time.Minute, 0, always(false, false)); hung == "" {
		t.Error("one that never begins is let be")
	}
}

// What comes back late is a sign of life, and silence begins anew.
func TestWatch_SilenceMustBeInOnePiece(t *testing.T) {
	m := provenEngine(t)
	for range 100 {
		if hung := m.run(900*time.Millisecond, 0, always(false, false)); hung != "" {
			t.Fatal(hung)
		}
		m.run(1, 0, always(true, true))
	}
}
