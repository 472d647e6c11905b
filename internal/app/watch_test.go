package app

import (
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

// engineModel is an engine as its watch sees it, over many looks.
type engineModel struct {
	w       watch
	threads []*thread
	given   uint64
	elapsed time.Duration
}

// modelled has one worker for each direction.
func modelled() *engineModel {
	return &engineModel{threads: []*thread{
		{id: 11, name: "W#01-in", side: [directions]bool{inToOut: true}, state: 'S'},
		{id: 12, name: "W#01-out", side: [directions]bool{outToIn: true}, state: 'S'},
	}}
}

// run looks for a time; each look is made by step, which may change the threads.
func (m *engineModel) run(limit time.Duration, step func(*sight)) (hung string) {
	for end := m.elapsed + limit; m.elapsed < end && hung == ""; {
		m.elapsed += lookEvery
		s := &sight{threads: m.threads, given: m.given}
		step(s)
		s.given = m.given
		hung = m.w.tick(lookEvery, s)
	}
	return hung
}

// works is a thread that was woken and has done its work, on a share of a processor.
func (m *engineModel) works(load float64) {
	for _, th := range m.threads {
		th.turns++
		th.ran += time.Duration(load * float64(lookEvery))
	}
}

var both = [directions]bool{true, true}

func proven(t *testing.T, m *engineModel) *engineModel {
	t.Helper()
	if hung := m.run(time.Minute, func(s *sight) { s.life = both; m.works(0.01) }); hung != "" || !m.w.up() {
		t.Fatalf("a good engine: up %t, %q", m.w.up(), hung)
	}
	m.elapsed = 0
	return m
}

// within is what the gateway promises.
const within = 100*time.Millisecond - 2*lookEvery // a canary is sent and seen in two looks

func TestWatch_AStoppedEngineIsNoticedAtOnce(t *testing.T) {
	for _, state := range []byte{'T', 't'} {
		for _, stopped := range [][]int{{0}, {1}, {0, 1}} {
			m := proven(t, modelled())
			for _, i := range stopped {
				m.threads[i].state = state
			}
			hung := m.run(time.Minute, func(s *sight) {})
			if !strings.Contains(hung, "stopped") || m.elapsed > within {
				t.Errorf("%c, threads %v: %q after %v", state, stopped, hung, m.elapsed)
			}
		}
	}
}

func TestWatch_ATracerThatStopsItNowAndThenIsNoHang(t *testing.T) {
	m := proven(t, modelled())
	if hung := m.run(time.Minute, func(s *sight) {
		m.threads[0].state = 't'
		m.works(0.1)
		s.life = both
	}); hung != "" {
		t.Error(hung)
	}
}

func TestWatch_AThreadThatSleepsOverItsWorkIsHung(t *testing.T) {
	for d := range directions {
		m := proven(t, modelled())
		hung := m.run(time.Minute, func(s *sight) {
			s.waiting[d] = true
			s.life[1-d] = true
			m.threads[1-d].turns++
		})
		if !strings.Contains(hung, "sleeps") || m.elapsed > within {
			t.Errorf("%s: %q after %v", directionNames[d], hung, m.elapsed)
		}
	}
}

// Of several workers it may be another that has the canary; then it takes longer.
func TestWatch_OneOfSeveralWorkersSleeps(t *testing.T) {
	m := modelled()
	m.threads = append(m.threads, &thread{id: 13, name: "W#02-in", side: [directions]bool{inToOut: true}, state: 'S'})
	proven(t, m)
	hung := m.run(time.Minute, func(s *sight) {
		s.life, s.waiting = both, [directions]bool{inToOut: true}
		m.threads[0].turns++
		m.threads[1].turns++
	})
	if !strings.Contains(hung, "W#02-in") || m.elapsed < 200*time.Millisecond || m.elapsed > 400*time.Millisecond {
		t.Errorf("%q after %v", hung, m.elapsed)
	}
}

// A canary that has not come to the engine is not missing, however long it takes.
func TestWatch_ALateKernelIsNoHang(t *testing.T) {
	m := proven(t, modelled())
	if hung := m.run(900*time.Millisecond, func(s *sight) {}); hung != "" {
		t.Errorf("%s after %v", hung, m.elapsed)
	}
}

// A starved engine wants a processor and gets none; or its worker waits for a lock
// that a starved thread holds.
func TestWatch_AStarvedEngineIsNotHung(t *testing.T) {
	m := proven(t, modelled())
	if hung := m.run(5*time.Second, func(s *sight) {
		s.waiting = both
		for _, th := range m.threads {
			th.state = 'R'
			th.waited += lookEvery
		}
	}); hung != "" {
		t.Errorf("both: %s after %v", hung, m.elapsed)
	}
	m = proven(t, modelled())
	if hung := m.run(200*time.Millisecond, func(s *sight) {
		s.waiting = both
		m.threads[0].state = 'R'
	}); hung != "" {
		t.Errorf("one: %s after %v", hung, m.elapsed)
	}
}

func TestWatch_AnEndlessLoop(t *testing.T) {
	for name, c := range map[string]struct {
		rate        uint64 // frames a look
		after, most time.Duration
	}{
		"with nothing to do": {0, 100 * time.Millisecond, 400 * time.Millisecond},
		"under load":         {100, 9 * time.Second, 11 * time.Second},
	} {
		m := proven(t, modelled())
		hung := m.run(time.Minute, func(s *sight) {
			s.waiting = both
			m.given += c.rate
			m.threads[0].state, m.threads[1].state = 'R', 'R'
			m.threads[0].ran += lookEvery
			m.threads[1].ran += lookEvery
		})
		if hung == "" || m.elapsed < c.after || m.elapsed > c.most {
			t.Errorf("%s: %q after %v", name, hung, m.elapsed)
		}
	}
}

// At fifty times what it can take, while it drops all that it takes.
func TestWatch_OverloadIsNoHang(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	m := proven(t, modelled())
	if hung := m.run(10*time.Minute, func(s *sight) {
		s.life, s.waiting = [directions]bool{r.IntN(25) == 0, r.IntN(25) == 0}, both
		m.given += 10_000
		m.threads[0].state, m.threads[1].state = 'R', 'S'
		m.works(0.5)
	}); hung != "" {
		t.Errorf("%s after %v", hung, m.elapsed)
	}
}

// Nobody sees the threads of an engine in another machine.
func TestWatch_AnEngineOutOfSight(t *testing.T) {
	nothing := func(*sight) {}
	for name, c := range map[string]struct {
		gap         int // looks between two signs of life, before
		rate        uint64
		after, most time.Duration
	}{
		"quiet":        {1, 0, 60 * time.Millisecond, 100 * time.Millisecond},
		"quiet, slow":  {6, 0, 400 * time.Millisecond, 700 * time.Millisecond},
		"at work":      {1, 20, 900 * time.Millisecond, 1100 * time.Millisecond},
		"under floods": {1, 1000, 9 * time.Second, 11 * time.Second},
	} {
		m, n := &engineModel{}, 0
		m.run(10*time.Second, func(s *sight) {
			if n++; n%c.gap == 0 {
				s.life = both
			}
			m.given += c.rate
		})
		m.elapsed = 0
		hung := m.run(time.Minute, func(s *sight) { nothing(s); m.given += c.rate })
		if hung == "" || m.elapsed < c.after || m.elapsed > c.most {
			t.Errorf("%s: %q after %v", name, hung, m.elapsed)
		}
	}
}

func TestWatch_ANewEngineHasTimeToBegin(t *testing.T) {
	m := modelled()
	if hung := m.run(9*time.Second, func(s *sight) { s.waiting = both }); hung != "" || m.w.up() {
		t.Errorf("up %t, %q", m.w.up(), hung)
	}
	if m.run(100*time.Millisecond, func(s *sight) { s.life[inToOut] = true }); m.w.up() {
		t.Error("up by one direction")
	}
	if m.run(100*time.Millisecond, func(s *sight) { s.life[outToIn] = true }); !m.w.up() {
		t.Error("not up by both")
	}
	m = modelled()
	if hung := m.run(time.Minute, func(s *sight) {}); hung == "" {
		t.Error("one that never begins is let be")
	}
}

func TestPulse(t *testing.T) {
	var h heartbeats
	p := pulse{beats: &h}
	for range 700 { // no heartbeat has passed: no alert is owed
		if lost := p.tick(lookEvery, 0); lost != "" || p.alive {
			t.Fatalf("alive %t, %q", p.alive, lost)
		}
	}
	beat := func() { p.passed(heartbeatKind, inToOut); h.count.Add(1) }
	if beat(); p.tick(lookEvery, 1) != "" || !p.alive {
		t.Error("a heartbeat is not felt")
	}
	p.passed(heartbeatKind, inToOut)
	var silent time.Duration
	for lost := ""; lost == ""; silent += lookEvery {
		lost = p.tick(lookEvery, 1)
	}
	if silent < alertsLate || silent > alertsLate+2*lookEvery {
		t.Errorf("alerts are missed after %v", silent)
	}
	p.forget()
	p.passed(heartbeatKind, inToOut)
	for i := range 5000 { // an alert storm: its own waits behind it
		if lost := p.tick(lookEvery, uint64(i)); lost != "" {
			t.Fatal(lost)
		}
	}
}
