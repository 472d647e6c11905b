package e2e_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/vmgate/vmgate/internal/api"
	"github.com/vmgate/vmgate/internal/event"
)

// feed collects a daemon's events.
type feed struct {
	mu     sync.Mutex
	events []event.Event
	grown  chan struct{} // closed and replaced when an event comes
}

// follow collects events until the daemon or the test ends.
func follow(t *testing.T, client *api.Client) (*feed, error) {
	ctx, stop := context.WithCancel(context.Background())
	events, err := client.Monitor(ctx)
	if err != nil {
		stop()
		return nil, err
	}
	f, ended := &feed{grown: make(chan struct{})}, make(chan struct{})
	go func() {
		defer close(ended)
		for e := range events {
			f.mu.Lock()
			f.events = append(f.events, e)
			close(f.grown)
			f.grown = make(chan struct{})
			f.mu.Unlock()
		}
	}()
	t.Cleanup(func() { stop(); <-ended })
	return f, nil
}

// mark is the place to look from for what has not happened yet.
func (f *feed) mark() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.events)
}

// wait returns the first event from the mark on that match accepts.
func (f *feed) wait(t *testing.T, mark int, what string, match func(event.Event) bool) event.Event {
	t.Helper()
	ctx := soon(t)
	for {
		f.mu.Lock()
		events, grown := f.events, f.grown
		f.mu.Unlock()
		if i := slices.IndexFunc(events[mark:], match); i >= 0 {
			return events[mark+i]
		}
		select {
		case <-ctx.Done():
			t.Fatalf("no event tells of %s; those since: %s", what, brief(events[mark:]))
		case <-grown:
		}
	}
}

func brief(events []event.Event) string {
	var text string
	for _, e := range events[max(0, len(events)-20):] {
		text += fmt.Sprintf("\n  %s %s %s:%d>%s:%d %s %s %s %s %s", e.Type, e.Proto, e.SrcIP, e.SrcPort, e.DestIP, e.DestPort, e.Verdict, e.Cause, e.Rule, e.Reason, e.Message)
	}
	return text
}

// decisionOn matches the decision on a flow from a source port.
func decisionOn(source int) func(event.Event) bool {
	return func(e event.Event) bool { return e.Type == "decision" && int(e.SrcPort) == source }
}
