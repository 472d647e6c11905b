package source

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"

	"github.com/vmgate/vmgate/pkg/vmi"
)

// The states of a guest.
const (
	Waiting = "waiting" // it has not booted, or not been tried yet
	Ready   = "ready"
	Failing = "failing" // its memory cannot be read, or not be understood
)

// How long to wait before a guest is tried again: while it boots, and for longer
// and longer while that fails.
const (
	retryBooting = time.Second
	retryFirst   = 500 * time.Millisecond
	retryLast    = 5 * time.Second
)

// stable is how long a guest was open if it may be opened again at once: one that
// changes all the time must not keep the processor busy.
const stable = 5 * time.Second

// checkEvery is how often the machine is looked at: none boots as fast.
const checkEvery = 500 * time.Millisecond

// Opener opens a guest once.
type Opener func(ctx context.Context) (*Opened, error)

// Keeper keeps one guest open: it waits for it to boot, discovers its kernel, and
// discovers it anew after a reboot.
type Keeper struct {
	name string
	open Opener
	log  *slog.Logger

	mu     sync.RWMutex
	guest  vmi.Guest // nil while not ready
	state  string
	why    error         // there is none
	reopen chan struct{} // asks for the guest to be discovered anew
}

// NewKeeper makes a keeper, which does nothing before Keep.
func NewKeeper(name string, open Opener, log *slog.Logger) *Keeper {
	return &Keeper{name: name, open: open, log: log, state: Waiting, why: errors.New("not tried yet"), reopen: make(chan struct{}, 1)}
}

// Keep works until ctx is done.
func (k *Keeper) Keep(ctx context.Context) {
	pause := backoff.NewExponentialBackOff()
	pause.InitialInterval, pause.MaxInterval = retryFirst, retryLast
	for ctx.Err() == nil {
		begin := time.Now()
		err := k.session(ctx)
		switch {
		case err == nil && time.Since(begin) > stable:
			pause.Reset()
		case errors.Is(err, vmi.ErrNotReady):
			k.sleep(ctx, retryBooting)
		default:
			k.sleep(ctx, pause.NextBackOff())
		}
	}
}

func (k *Keeper) sleep(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// session opens the guest and holds it until it changes.
func (k *Keeper) session(ctx context.Context) error {
	opened, err := k.open(ctx)
	if err != nil {
		state := Failing
		if errors.Is(err, vmi.ErrNotReady) {
			state = Waiting
		}
		if k.set(nil, state, err) && ctx.Err() == nil {
			k.log.Warn("guest cannot be looked into yet", "state", state, "error", err)
		}
		return err
	}
	select {
	case <-k.reopen: // it was about the one before
	default:
	}
	k.set(opened.Guest, Ready, nil)
	k.log.Info("guest discovered", "os", opened.OS())
	why := k.untilChanged(ctx, opened)
	k.set(nil, Waiting, why)
	if ctx.Err() == nil {
		k.log.Info("guest is discovered anew", "because", why)
	}
	if err := opened.Close(); err != nil {
		k.log.Debug("cannot close a guest's memory", "error", err)
	}
	return nil
}

// untilChanged returns when the guest's kernel, or the machine, is another, and
// says which.
func (k *Keeper) untilChanged(ctx context.Context, opened *Opened) error {
	tick := time.NewTicker(checkEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return errors.New("it is no longer looked into")
		case <-k.reopen:
			return vmi.ErrChanged
		case <-tick.C:
			if err := opened.Same(ctx); err != nil && ctx.Err() == nil {
				return err
			}
		}
	}
}

// set records the state and tells whether it is news.
func (k *Keeper) set(guest vmi.Guest, state string, why error) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	news := k.state != state || fmt.Sprint(k.why) != fmt.Sprint(why)
	k.guest, k.state, k.why = guest, state, why
	return news
}

// Status returns the state, the operating system and the detail, for people.
func (k *Keeper) Status() (state, os, detail string) {
	k.mu.RLock()
	defer k.mu.RUnlock()
	if k.guest != nil {
		os = k.guest.OS()
	}
	if k.why != nil {
		detail = k.why.Error()
	}
	return k.state, os, detail
}

// Current returns the open guest, or an error that says why there is none.
func (k *Keeper) Current() (vmi.Guest, error) {
	k.mu.RLock()
	defer k.mu.RUnlock()
	if k.guest == nil {
		return nil, fmt.Errorf("cannot introspect %s: %s: %w", k.name, k.state, k.why)
	}
	return k.guest, nil
}

// Noticed lets the keeper know of errors that mean another kernel.
func (k *Keeper) Noticed(err error) {
	if errors.Is(err, vmi.ErrChanged) {
		select {
		case k.reopen <- struct{}{}:
		default:
		}
	}
}
