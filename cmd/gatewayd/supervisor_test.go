package main

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"
)

// fakeService is ready after a second, reloads in two, and stops in three.
type fakeService struct {
	reloads int
	err     error // after an hour, if set
}

func (f *fakeService) Run(ctx context.Context, ready func(), reload <-chan struct{}) error {
	time.Sleep(time.Second)
	ready()
	var failed <-chan time.Time
	if f.err != nil {
		failed = time.After(time.Hour)
	}
	for {
		select {
		case <-reload:
			time.Sleep(2 * time.Second)
			f.reloads++
			ready()
		case <-failed:
			return f.err
		case <-ctx.Done():
			time.Sleep(3 * time.Second)
			return nil
		}
	}
}

// told records what the service manager was told, with the seconds since the start.
type told struct {
	mu     sync.Mutex
	start  time.Time
	states []string
}

func (n *told) tell(state string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	state, _, _ = strings.Cut(state, "\n")
	n.states = append(n.states, time.Since(n.start).String()+" "+state)
}

func (n *told) want(t *testing.T, want ...string) {
	t.Helper()
	if got := strings.Join(n.states, ", "); got != strings.Join(want, ", ") {
		t.Errorf("told %s\nwant %s", got, strings.Join(want, ", "))
	}
}

func newSupervisor(hangups chan os.Signal) (*supervisor, *told) {
	n := &told{start: time.Now()}
	return &supervisor{
		log: slog.New(slog.DiscardHandler), tell: n.tell, hangups: hangups,
		alive: func(context.Context) error { return nil },
	}, n
}

func TestSupervisor_TellsOfReadinessReloadsAndTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hangups := make(chan os.Signal, 1)
		s, notices := newSupervisor(hangups)
		ctx, cancel := context.WithCancel(t.Context())
		service := &fakeService{}
		go func() {
			time.Sleep(10 * time.Second)
			hangups <- unix.SIGHUP
			time.Sleep(10 * time.Second)
			cancel()
		}()
		if err := s.run(ctx, service); err != nil {
			t.Error(err)
		}
		notices.want(t, "1s READY=1", "10s RELOADING=1", "12s READY=1", "20s STOPPING=1")
		if took := time.Since(notices.start); took != 23*time.Second {
			t.Errorf("returned after %v, before the service had stopped or long after", took)
		}
	})
}

func TestSupervisor_HangupsDuringAReloadAreOneMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hangups := make(chan os.Signal, 1)
		s, _ := newSupervisor(hangups)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		service := &fakeService{}
		go func() {
			time.Sleep(5 * time.Second)
			for range 3 {
				select {
				case hangups <- unix.SIGHUP:
				default: // as the runtime does with signals
				}
				time.Sleep(100 * time.Millisecond)
			}
		}()
		if err := s.run(ctx, service); err != nil {
			t.Error(err)
		}
		if service.reloads < 2 || service.reloads > 3 {
			t.Errorf("%d reloads, want the first and one or two for the rest", service.reloads)
		}
	})
}

func TestSupervisor_TheWatchdogIsFedOnlyWhileTheDaemonAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, notices := newSupervisor(nil)
		ctx, cancel := context.WithTimeout(t.Context(), 45*time.Second)
		defer cancel()
		s.interval = 10 * time.Second
		s.alive = func(ctx context.Context) error {
			if time.Since(notices.start) > 15*time.Second {
				<-ctx.Done() // hangs
			}
			return ctx.Err()
		}
		if err := s.run(ctx, &fakeService{}); err != nil {
			t.Error(err)
		}
		notices.want(t, "1s READY=1", "1s WATCHDOG=1", "11s WATCHDOG=1", "45s STOPPING=1")
	})
}

func TestSupervisor_ReturnsTheServicesError(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, notices := newSupervisor(nil)
		s.interval = 25 * time.Minute
		broken := errors.New("the queue died")
		if err := s.run(t.Context(), &fakeService{err: broken}); !errors.Is(err, broken) {
			t.Errorf("error %v, want %v", err, broken)
		}
		notices.want(t, "1s READY=1", "1s WATCHDOG=1", "25m1s WATCHDOG=1", "50m1s WATCHDOG=1", "1h0m1s STOPPING=1")
	})
}
