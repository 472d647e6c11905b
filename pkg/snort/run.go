package snort

import (
	"context"
	"errors"
	"fmt"
	"time"

	// Its randomised growth is what a restart loop needs; nothing to write anew.
	"github.com/cenkalti/backoff/v5"
	"golang.org/x/sync/errgroup"
)

const (
	// startLimit bounds a start: 25 s were seen with 24,800 rules.
	startLimit = 5 * time.Minute
	// steady is how long an engine must have been up for its end to count as the
	// first again.
	steady = time.Minute
	// firstPause and longestPause bound the time between two starts.
	firstPause   = 200 * time.Millisecond
	longestPause = 30 * time.Second
)

// Run starts the engine, watches over it and starts it again whenever it ends,
// until ctx does; then it stops the engine and removes what it made. It returns
// an error only where another start would not help.
//
// onState is called from Run's own goroutine at every change of phase; onAlert
// from one other goroutine, in the order of the engine's lines. While onAlert
// takes its time a bounded number of alerts waits and the rest is counted as
// lost: the engine and its packets never wait. When Run returns, every alert
// that was not lost has been handed over.
func (e *Engine) Run(ctx context.Context, onState func(State), onAlert func(Alert)) (err error) {
	release, err := e.claim()
	if err != nil {
		return fmt.Errorf("cannot run the IDS engine: %w", err)
	}
	defer release()
	e.setRunning(true)
	defer e.setRunning(false)

	src, err := e.drv.listen(e.cfg.Dir, e.user, e.alerts.splitter(e.drv))
	if err != nil {
		return fmt.Errorf("cannot run the IDS engine: %w", err)
	}
	handOver := e.alerts.open(onAlert)

	// The source outlives the engine, to read its last words.
	read, readCtx := errgroup.WithContext(context.Background())
	sourceCtx, stopSource := context.WithCancel(readCtx)
	read.Go(func() error { return src.serve(sourceCtx) })
	runCtx, stopRun := context.WithCancel(ctx)
	unlink := context.AfterFunc(readCtx, stopRun) // without alerts it runs blind
	e.supervise(runCtx, onState)
	unlink()
	stopRun()
	stopSource()
	err = read.Wait()
	handOver()
	return err
}

// supervise runs one engine after the other until ctx ends.
func (e *Engine) supervise(ctx context.Context, onState func(State)) {
	pause := newPauses()
	for {
		up, err := e.instance(ctx, onState)
		if ctx.Err() != nil {
			e.enter(PhaseDown, nil, "stopped", onState)
			return
		}
		if up >= steady {
			pause.Reset()
		}
		wait := pause.NextBackOff()
		e.enter(PhaseDown, nil, err.Error(), onState)
		e.cfg.Log.Error("IDS engine is down", "error", err, "again_in", wait)
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
		e.mu.Lock()
		e.state.Restarts++
		e.mu.Unlock()
	}
}

// newPauses grow by half from one to the next, each give or take a half.
func newPauses() *backoff.ExponentialBackOff {
	pause := backoff.NewExponentialBackOff()
	pause.InitialInterval, pause.MaxInterval = firstPause, longestPause
	return pause
}

// instance runs one engine from its start to its end, and says how long it was
// up and why it ended.
func (e *Engine) instance(ctx context.Context, onState func(State)) (up time.Duration, err error) {
	e.enter(PhaseStarting, nil, "", onState)
	said := newConsole(e.drv, e.cfg.Log, e.cfg.originals(e.cfg.Dir))
	p, err := e.launch(ctx, said)
	if err != nil {
		return 0, err
	}
	defer removeFiles(e.cfg.Dir, []string{pidFile})
	defer p.stop(stopLimit)
	began := time.Now()
	e.enter(PhaseUp, p, "", onState)
	select {
	case <-ctx.Done():
		err = ctx.Err()
	case <-p.exited:
		err = said.explain(p.ended())
	}
	e.mu.Lock()
	e.proc = nil
	if p.why != "" {
		err = errors.New(p.why)
	}
	e.mu.Unlock()
	return time.Since(began), err
}

// launch starts an engine and returns it when it inspects.
func (e *Engine) launch(ctx context.Context, said *console) (p *process, err error) {
	select {
	case e.loading <- struct{}{}:
		defer func() { <-e.loading }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	pair, err := findDevices(e.cfg.NetNS, e.cfg.In, e.cfg.Out)
	if err != nil {
		return nil, err
	}
	dir := e.cfg.Dir
	removeFiles(dir, e.drv.leftovers())
	if !e.proven {
		if err := e.cfg.copyRules(dir); err != nil {
			return nil, err
		}
	}
	if err := e.drv.configure(e.cfg.withRulesIn(dir), max(e.cfg.MTU, pair.mtu)+headerRoom, dir, false); err != nil {
		return nil, err
	}
	if err := e.user.share(dir); err != nil {
		return nil, fmt.Errorf("cannot let user %s read the configuration: %w", e.user.name, err)
	}
	engine := program{
		binary: e.binary, args: e.drv.runArgs(e.cfg, dir), netNS: e.cfg.NetNS,
		user: e.user, caps: engineCaps, terminal: e.drv.needsTerminal(),
	}
	if p, err = start(engine, said); err != nil {
		return nil, err
	}
	p.said = said
	err = writePID(dir, p.pid())
	if err == nil {
		err = e.awaitReady(ctx, p, pair, said)
	}
	// Copies with which no engine starts are made anew, from what the operator may
	// have put right since.
	e.proven = err == nil
	if err != nil {
		p.stop(stopLimit)
		removeFiles(dir, []string{pidFile})
		return nil, err
	}
	return p, nil
}

// awaitReady returns when the engine really inspects: it has said so and its
// sockets on both devices run.
func (e *Engine) awaitReady(ctx context.Context, p *process, pair devicePair, said *console) error {
	limit := time.NewTimer(startLimit)
	defer limit.Stop()
	look := time.NewTicker(20 * time.Millisecond)
	defer look.Stop()
	announced := e.drv.readyAtOnce()
	for {
		if announced && attached(p.pid(), pair.indexes) {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-p.exited:
			return said.explain(p.ended())
		case <-limit.C:
			return fmt.Errorf("the engine was not ready within %v", startLimit)
		case <-said.ready:
			announced = true
		case <-look.C:
		}
	}
}

// enter changes the phase and tells it.
func (e *Engine) enter(phase string, p *process, detail string, onState func(State)) {
	e.mu.Lock()
	e.state.Phase, e.state.Since, e.state.Detail, e.state.PID = phase, time.Now(), detail, 0
	e.proc = p
	if p != nil {
		e.state.PID = p.pid()
	}
	e.mu.Unlock()
	s := e.State()
	e.cfg.Log.Debug("IDS engine", "phase", s.Phase, "pid", s.PID, "detail", s.Detail)
	onState(s)
}
