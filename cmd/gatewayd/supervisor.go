package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/sys/unix"
)

// service is the daemon proper (app.App). It calls ready when it has started
// and after each reload, whether that succeeded or not.
type service interface {
	Run(ctx context.Context, ready func(), reload <-chan struct{}) error
}

// supervisor stands between the daemon and what started it: signals come in,
// sd_notify(3) states go out. The daemon itself never sees either.
type supervisor struct {
	log      *slog.Logger
	tell     func(state string)
	hangups  <-chan os.Signal
	interval time.Duration               // between signs of life; 0: none are wanted
	alive    func(context.Context) error // asks the daemon the way operators do
}

// run runs the service until ctx is done or the service fails.
func (s *supervisor) run(ctx context.Context, service service) error {
	ctx, cancel := context.WithCancel(ctx)
	var wait sync.WaitGroup
	defer wait.Wait()
	defer cancel()

	reload := make(chan struct{})
	started := make(chan struct{})
	start := sync.OnceFunc(func() { close(started) })
	ready := func() {
		s.tell(daemon.SdNotifyReady)
		start()
	}
	wait.Go(func() { s.forwardHangups(ctx, reload) })
	wait.Go(func() {
		select {
		case <-started:
			s.feedWatchdog(ctx)
		case <-ctx.Done():
		}
	})
	wait.Go(func() {
		<-ctx.Done() // when the signal comes, not when the work has ended
		s.tell(daemon.SdNotifyStopping)
	})
	return service.Run(ctx, ready, reload)
}

// forwardHangups turns each SIGHUP into a reload; those that come while one is
// under way are one more together.
func (s *supervisor) forwardHangups(ctx context.Context, reload chan<- struct{}) {
	for {
		select {
		case <-s.hangups:
			s.tell(fmt.Sprintf("%s\nMONOTONIC_USEC=%d", daemon.SdNotifyReloading, monotonicMicros()))
		case <-ctx.Done():
			return
		}
		select {
		case reload <- struct{}{}:
		case <-ctx.Done():
			return
		}
	}
}

// feedWatchdog gives signs of life only while the daemon answers its operators:
// a process whose timers run but whose work hangs must be restarted.
func (s *supervisor) feedWatchdog(ctx context.Context) {
	if s.interval <= 0 {
		return
	}
	tick := time.NewTicker(s.interval)
	defer tick.Stop()
	for {
		call, cancel := context.WithTimeout(ctx, s.interval)
		err := s.alive(call)
		cancel()
		switch {
		case err == nil:
			s.tell(daemon.SdNotifyWatchdog)
		case ctx.Err() == nil:
			s.log.Error("the daemon does not answer itself; the watchdog will end it if that goes on", "error", err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// monotonicMicros is what MONOTONIC_USEC of sd_notify(3) wants.
func monotonicMicros() int64 {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		return 0 // there is no Linux on which this fails
	}
	return now.Nano() / int64(time.Microsecond)
}
