package source

import (
	"context"
	"sync"

	"github.com/vmgate/vmgate/pkg/vmi"
)

// impatient is a guest whose look-ups of owners end by their deadline even where a
// single read of its memory does not: a monitor may fall silent.
type impatient struct {
	vmi.Guest

	mu      sync.Mutex // running does not grow once it is closed
	closed  bool
	running sync.WaitGroup
}

// impatiently makes what is open impatient. Closing it waits for what is under way.
func impatiently(opened *Opened) *Opened {
	g := &impatient{Guest: opened.Guest}
	return &Opened{Guest: g, Same: opened.Same, Close: func() error {
		g.mu.Lock()
		g.closed = true
		g.mu.Unlock()
		err := opened.Close()
		g.running.Wait() // a read ends by itself within seconds, and what follows it fails
		return err
	}}
}

// Owners implements vmi.Guest.
func (g *impatient) Owners(ctx context.Context, q vmi.Query) (vmi.Answer, error) {
	type result struct {
		answer vmi.Answer
		err    error
	}
	found := make(chan result, 1)
	g.mu.Lock()
	if g.closed {
		g.mu.Unlock()
		return g.Guest.Owners(ctx, q) // nothing is left to read
	}
	g.running.Go(func() {
		answer, err := g.Guest.Owners(ctx, q)
		found <- result{answer, err}
	})
	g.mu.Unlock()
	select {
	case r := <-found:
		return r.answer, r.err
	case <-ctx.Done():
		return vmi.Answer{}, ctx.Err()
	}
}
