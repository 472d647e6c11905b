package event

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// TypeLost is the event type that tells a reader of events it has missed: what
// was lost is counted, never waited for.
const TypeLost = "lost"

// subscriberBuffer is how many events a reader may lag behind before it loses some.
const subscriberBuffer = 256

// Hub hands each published event to every subscriber. Publishing never blocks: a
// slow subscriber loses events and is told how many.
type Hub struct {
	mu   sync.Mutex
	subs map[*subscriber]struct{}
}

type subscriber struct {
	ch   chan Event
	lost uint64
}

// NewHub returns a hub without subscribers.
func NewHub() *Hub { return &Hub{subs: map[*subscriber]struct{}{}} }

// Publish hands e to all subscribers. It never blocks and is safe for concurrent use.
func (h *Hub) Publish(e Event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for s := range h.subs {
		s.offer(e)
	}
}

// Subscribe returns a channel of the events published from now on, until ctx is
// done: then it is closed. Events that did not fit are counted in an event of
// type "lost" that comes before the next one that fits.
func (h *Hub) Subscribe(ctx context.Context) <-chan Event {
	s := &subscriber{ch: make(chan Event, subscriberBuffer)}
	h.mu.Lock()
	h.subs[s] = struct{}{}
	h.mu.Unlock()
	context.AfterFunc(ctx, func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		delete(h.subs, s)
		close(s.ch)
	})
	return s.ch
}

// offer is called with the hub's lock held: nobody else sends, so room that is
// seen stays.
func (s *subscriber) offer(e Event) {
	if s.lost > 0 && cap(s.ch)-len(s.ch) >= 2 {
		s.ch <- lostEvent(s.lost)
		s.lost = 0
	}
	if s.lost > 0 {
		s.lost++
		return
	}
	select {
	case s.ch <- e:
	default:
		s.lost++
	}
}

func lostEvent(n uint64) Event {
	return Event{
		Timestamp: time.Now(),
		Type:      TypeLost,
		Message:   fmt.Sprintf("%d events lost: the reader is too slow", n),
	}
}
