package snort

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestEngine_KilledEngineIsReplacedAndPassesAgain(t *testing.T) {
	eachEngine(t, func(t *testing.T, engine string) {
		t.Parallel()
		w := newWire(t)
		c := configFor(t, engine, w, synFlood)
		r := run(t, c)
		first := r.await(PhaseUp)
		// Someone is just editing the rules: the new engine takes those of the old.
		must(t, os.WriteFile(c.Rules[0], []byte("alert nonsense\n"), 0o600))
		began := time.Now()
		must(t, unix.Kill(first.PID, unix.SIGKILL))
		down := r.await(PhaseDown)
		t.Logf("noticed after %v: %s", time.Since(began), down.Detail)
		second := r.await(PhaseUp)
		t.Logf("up again after %v", time.Since(began))
		if second.PID == first.PID || second.Restarts != 1 {
			t.Errorf("first %+v, second %+v", first, second)
		}
		if d := time.Since(began); d > 10*time.Second {
			t.Errorf("it took %v", d)
		}
		frame := udpFrame(t, false, []byte("again"))
		w.i0.send(frame)
		if !w.i1.arrives(frame, 2*time.Second) {
			t.Error("no traffic after the restart")
		}
		for i := range 11 { // alerts come from the new one as well
			w.i0.send(syn(t, uint16(3000+i), 1))
		}
		if _, ok := r.alert(2 * time.Second); !ok {
			t.Error("no alert after the restart")
		}
	})
}

// Not parallel: it counts what the test's own process has open.
func TestEngine_StopLeavesNothing(t *testing.T) {
	eachEngine(t, func(t *testing.T, engine string) {
		w := newWire(t)
		filesBefore, goroutinesBefore := openHere(t)
		c := configFor(t, engine, w, synFlood)
		r := run(t, c)
		pid := r.await(PhaseUp).PID
		began := time.Now()
		must(t, r.stop())
		t.Logf("stopped in %v", time.Since(began))
		if err := unix.Kill(pid, 0); err != unix.ESRCH {
			t.Errorf("process %d is still there: %v", pid, err)
		}
		if _, err := os.Stat(c.Dir); !os.IsNotExist(err) {
			left, _ := filepath.Glob(c.Dir + "/*")
			t.Errorf("left in the directory: %v", left)
		}
		if s := r.State(); s.Phase != PhaseDown || s.PID != 0 {
			t.Errorf("state after the stop: %+v", s)
		}
		// The runtime's own may take a moment to go.
		for deadline := time.Now().Add(2 * time.Second); ; time.Sleep(time.Millisecond) {
			files, goroutines := openHere(t)
			if files <= filesBefore && goroutines <= goroutinesBefore {
				return
			}
			if time.Now().After(deadline) {
				stacks := make([]byte, 1<<16)
				t.Fatalf("%d files and %d goroutines before, %d and %d after\n%s", filesBefore, goroutinesBefore,
					files, goroutines, stacks[:runtime.Stack(stacks, true)])
			}
		}
	})
}

// openHere counts this process's files and goroutines.
func openHere(t *testing.T) (files, goroutines int) {
	t.Helper()
	list, err := os.ReadDir("/proc/self/fd")
	must(t, err)
	return len(list), runtime.NumGoroutine()
}

// A daemon that was killed leaves its engine; the next one must not be kept from
// the devices by it.
func TestEngine_EngineOfAKilledDaemonIsEndedFirst(t *testing.T) {
	eachEngine(t, func(t *testing.T, engine string) {
		t.Parallel()
		w := newWire(t)
		c := configFor(t, engine, w, synFlood)
		old := run(t, c)
		pid := old.await(PhaseUp).PID

		second, err := New(c)
		must(t, err)
		if err := second.Run(t.Context(), func(State) {}, func(Alert) {}); err == nil || !strings.Contains(err.Error(), "in use") {
			t.Fatalf("two daemons in one directory: %v", err)
		}
		// As after a kill: the lock is free, the pid file is there, the engine lives.
		left, err := endPrevious(c.Dir)
		must(t, err)
		if left != pid {
			t.Errorf("ended process %d, want %d", left, pid)
		}
		if s := old.await(PhaseDown); s.Detail == "" {
			t.Error("its end was not told")
		}
		// A pid that another process has now is left alone.
		must(t, os.WriteFile(filepath.Join(c.Dir, pidFile), []byte(fmt.Sprintf("%d 1\n", os.Getpid())), 0o600))
		left, err = endPrevious(c.Dir)
		if left != 0 || err != nil {
			t.Errorf("a stranger's pid: %d, %v", left, err)
		}
	})
}
