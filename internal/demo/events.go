package demo

import (
	"context"
	"fmt"
	"sync"

	"github.com/vmgate/vmgate/internal/api"
	"github.com/vmgate/vmgate/internal/event"
)

// feed follows the gateway's events: it prints them and keeps them, so that a
// step can wait for the one that it expects.
type feed struct {
	screen *screen

	mu     sync.Mutex
	events []event.Event
	grown  chan struct{} // closed and replaced when an event comes
	shown  map[string]int
}

func newFeed(s *screen) *feed {
	return &feed{screen: s, grown: make(chan struct{}), shown: map[string]int{}}
}

// follow reads events until ctx is done.
func (f *feed) follow(ctx context.Context, client *api.Client) error {
	events, err := client.Monitor(ctx)
	if err != nil {
		return fmt.Errorf("cannot follow the gateway's events: %w", err)
	}
	for e := range events {
		f.show(e)
		f.mu.Lock()
		f.events = append(f.events, e)
		close(f.grown)
		f.grown = make(chan struct{})
		f.mu.Unlock()
	}
	return nil
}

// mark is the place in the feed that a step starts to look from.
func (f *feed) mark() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.events)
}

// wait returns the first event from the mark on that match accepts.
func (f *feed) wait(ctx context.Context, mark int, what string, match func(event.Event) bool) (event.Event, error) {
	for next := mark; ; {
		f.mu.Lock()
		events, grown := f.events, f.grown
		f.mu.Unlock()
		for ; next < len(events); next++ {
			if match(events[next]) {
				return events[next], nil
			}
		}
		select {
		case <-ctx.Done():
			return event.Event{}, fmt.Errorf("the gateway did not report %s: %w", what, context.Cause(ctx))
		case <-grown:
		}
	}
}

// sameLines is how many alike lines are printed: a flood has thousands.
const sameLines = 3

// show prints one event in a line.
func (f *feed) show(e event.Event) {
	text := describe(e)
	if text == "" {
		return
	}
	kind := e.Type + e.Verdict + e.Cause + e.Rule + e.Reason + processName(e)
	f.mu.Lock()
	f.shown[kind]++
	n := f.shown[kind]
	f.mu.Unlock()
	switch {
	case n <= sameLines:
		f.screen.line("%s", text)
	case n == sameLines+1:
		f.screen.line("%s (more like this are not shown)", text)
	}
}

func processName(e event.Event) string {
	if e.SrcProcess == nil {
		return ""
	}
	return e.SrcProcess.Name
}

// describe writes an event for people, "" for those of no interest here.
func describe(e event.Event) string {
	flow := fmt.Sprintf("%s %s:%d → %s:%d", e.Proto, e.SrcIP, e.SrcPort, e.DestIP, e.DestPort)
	who := e.SrcVM
	if e.SrcProcess != nil {
		who += " " + e.SrcProcess.String()
		if e.SrcProcess.Hidden {
			who += " HIDDEN"
		}
	}
	switch e.Type {
	case "decision":
		return fmt.Sprintf("decision  %s  %s: %s by %s (%s), %.1f ms", flow, who, e.Verdict, e.Rule, e.Cause, float64(e.Micros)/1000)
	case "alert":
		return fmt.Sprintf("alert     %s  %s: %s %q", flow, who, e.Alert.Action, e.Alert.Signature)
	case "verdict":
		return fmt.Sprintf("verdict   %s: %s (%s) %s", who, e.Verdict, e.Cause, e.Message)
	case "drop", "spoof":
		return fmt.Sprintf("%-9s %s  %s: %s (%s)", e.Type, flow, who, e.Reason, e.Cause)
	case "ids", "config", "operator":
		return fmt.Sprintf("%-9s %s", e.Type, e.Message)
	}
	return ""
}
