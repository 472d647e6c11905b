package event

import (
	"context"
	"strconv"
	"sync"
	"testing"
	"time"
)

func TestHub_EverySubscriberGetsEveryEventInOrder(t *testing.T) {
	h := NewHub()
	ctx, cancel := context.WithCancel(t.Context())
	first, second := h.Subscribe(ctx), h.Subscribe(ctx)
	for i := range 100 {
		h.Publish(Event{Type: "decision", FlowID: uint64(i)})
	}
	cancel()
	for name, ch := range map[string]<-chan Event{"first": first, "second": second} {
		next := uint64(0)
		for e := range ch { // closed by cancel
			if e.FlowID != next {
				t.Fatalf("%s got event %d, want %d", name, e.FlowID, next)
			}
			next++
		}
		if next != 100 {
			t.Errorf("%s got %d events, want 100", name, next)
		}
	}
}

func TestHub_SlowReaderIsToldWhatItLost(t *testing.T) {
	h := NewHub()
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	ch := h.Subscribe(ctx)
	for i := range subscriberBuffer + 10 {
		h.Publish(Event{Type: "decision", FlowID: uint64(i)})
	}
	for i := range subscriberBuffer {
		if e := <-ch; e.FlowID != uint64(i) {
			t.Fatalf("event %d is %+v", i, e)
		}
	}
	h.Publish(Event{Type: "decision", FlowID: 999})
	lost, next := <-ch, <-ch
	if lost.Type != TypeLost || lost.Message != "10 events lost: the reader is too slow" || lost.Timestamp.IsZero() {
		t.Errorf("after the gap came %+v, want 10 lost", lost)
	}
	if next.FlowID != 999 {
		t.Errorf("after the lost event came %+v, want 999", next)
	}
}

// Readers come and go while events are published; run with -race.
func TestHub_SubscribersComeAndGo(t *testing.T) {
	h := NewHub()
	var readers sync.WaitGroup
	for i := range 8 {
		readers.Go(func() {
			for range 50 {
				ctx, cancel := context.WithTimeout(t.Context(), time.Duration(i)*100*time.Microsecond)
				for range h.Subscribe(ctx) {
				}
				cancel()
			}
		})
	}
	stop := make(chan struct{})
	var publisher sync.WaitGroup
	publisher.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
				h.Publish(Event{Message: strconv.Itoa(i)})
			}
		}
	})
	readers.Wait()
	close(stop)
	publisher.Wait()
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.subs) != 0 {
		t.Errorf("%d subscribers are left", len(h.subs))
	}
}
