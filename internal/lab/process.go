package lab

import (
	"context"
	"errors"
	"slices"
	"sync"
	"syscall"

	"github.com/vmgate/vmgate/internal/lab/control"
)

// maxLines is how many output lines of a process are kept, the latest ones.
const maxLines = 10_000

// Process is something that runs, or has run, in a guest.
type Process struct {
	channel *channel
	id      uint64

	mu      sync.Mutex
	pid     int
	lines   []string
	dropped int // lines that were forgotten
	done    *control.Reply
	err     error
	changed chan struct{} // closed and replaced whenever something above changes
}

// PID returns the process's pid inside its guest.
func (p *Process) PID() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.pid
}

// Lines returns the lines of standard output so far, at most the last 10,000.
func (p *Process) Lines() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.lines)
}

// WaitLine returns the first line, past ones included, that match accepts. It
// fails when the process ends without one.
func (p *Process) WaitLine(ctx context.Context, match func(string) bool) (string, error) {
	for seen := 0; ; {
		p.mu.Lock()
		fresh, count := p.since(seen)
		done, err, changed := p.done != nil, p.err, p.changed
		p.mu.Unlock()
		if i := slices.IndexFunc(fresh, match); i >= 0 {
			return fresh[i], nil
		}
		seen = count
		switch {
		case err != nil:
			return "", err
		case done:
			return "", errors.New("the process ended without the line that was waited for")
		}
		select {
		case <-ctx.Done():
			return "", context.Cause(ctx)
		case <-changed:
		}
	}
}

// since returns the lines after the first seen ones, and how many there have
// been in all. The caller holds mu.
func (p *Process) since(seen int) ([]string, int) {
	total := p.dropped + len(p.lines)
	return slices.Clone(p.lines[max(0, min(len(p.lines), seen-p.dropped)):]), total
}

// Wait returns the exit status when the process has ended: 128 and the signal
// where a signal ended it.
func (p *Process) Wait(ctx context.Context) (exit int, err error) {
	err = p.await(ctx, func() bool { return p.done != nil })
	if err != nil {
		return 0, err
	}
	return p.reply().Exit, nil
}

// Signal sends a signal to the process and its children. One that has ended
// already is no error.
func (p *Process) Signal(signal syscall.Signal) error {
	return p.channel.signal(p.id, int(signal))
}

func (p *Process) awaitStart(ctx context.Context) error {
	return p.await(ctx, func() bool { return p.pid != 0 })
}

// await blocks until the condition, which is called with mu held, is true.
func (p *Process) await(ctx context.Context, condition func() bool) error {
	for {
		p.mu.Lock()
		met, err, changed := condition(), p.err, p.changed
		p.mu.Unlock()
		switch {
		case err != nil:
			return err
		case met:
			return nil
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-changed:
		}
	}
}

func (p *Process) reply() control.Reply {
	p.mu.Lock()
	defer p.mu.Unlock()
	return *p.done
}

// take records one message about the process.
func (p *Process) take(reply control.Reply) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch reply.Kind {
	case control.Started:
		p.pid = reply.PID
	case control.Line:
		p.lines = append(p.lines, string(reply.Output))
		if excess := len(p.lines) - maxLines; excess > 0 {
			p.lines = slices.Delete(p.lines, 0, excess)
			p.dropped += excess
		}
	case control.Done:
		p.done = &reply
		if reply.Error != "" {
			p.err = errors.New(reply.Error)
		}
	}
	p.wake()
}

func (p *Process) fail(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.err == nil {
		p.err = err
	}
	p.wake()
}

func (p *Process) wake() {
	close(p.changed)
	p.changed = make(chan struct{})
}
