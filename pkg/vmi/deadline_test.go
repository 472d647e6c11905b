package vmi_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/vmgate/vmgate/pkg/vmi"
)

// slowMemory takes its time for each read, as a monitor or a network does.
type slowMemory struct {
	vmi.Memory
	each time.Duration
}

func (m slowMemory) ReadPhys(p []byte, addr uint64) error {
	time.Sleep(m.each)
	return m.Memory.ReadPhys(p, addr)
}

// A look-up ends at its deadline, in the middle of a walk of its own and while
// it waits for one that a sweep has begun.
func TestGuest_LookUpEndsAtItsDeadline(t *testing.T) {
	f := guest(t)
	slow := &slowMemory{Memory: f.mem}
	g, err := vmi.Open(t.Context(), slow, vmi.Options{})
	if err != nil {
		t.Fatal(err)
	}
	slow.each = time.Millisecond // a sweep takes seconds now
	ask := func() {
		t.Helper()
		const deadline = 100 * time.Millisecond
		ctx, cancel := context.WithTimeout(t.Context(), deadline)
		defer cancel()
		begin := time.Now()
		_, err := g.Owners(ctx, vmi.Query{Proto: 6, Local: local(t, "127.0.0.1:82")})
		if took := time.Since(begin); !errors.Is(err, context.DeadlineExceeded) || took > 4*deadline {
			t.Errorf("%v after %v, want the deadline of %v", err, took, deadline)
		}
	}
	ask()
	ctx, cancel := context.WithCancel(t.Context())
	swept := make(chan error, 1)
	go func() { swept <- g.Sweep(ctx) }()
	time.Sleep(50 * time.Millisecond) // the sweep has its turn
	ask()
	select {
	case err := <-swept:
		t.Errorf("the sweep was over before the look-up: %v", err)
	default:
	}
	cancel()
	if err := <-swept; !errors.Is(err, context.Canceled) {
		t.Errorf("a cancelled sweep: %v", err)
	}
}
