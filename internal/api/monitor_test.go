package api_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"testing"
	"time"

	"github.com/vmgate/vmgate/internal/api"
	"github.com/vmgate/vmgate/internal/api/apitest"
)

func TestMonitor_StreamsUntilTheClientGoes(t *testing.T) {
	r := serve(t, nil)
	ctx, cancel := context.WithCancel(t.Context())
	events, err := r.Monitor(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"decision", "drop", "alert", "lost", "operator"} {
		if e := <-events; e.Type != want {
			t.Errorf("event %q, want %q", e.Type, want)
		}
	}
	cancel()
	if e, open := <-events; open {
		t.Errorf("after the end came %+v", e)
	}
}

func TestMonitor_EndsWithTheDaemon(t *testing.T) {
	r := serve(t, nil)
	events, err := r.Monitor(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	<-events
	if err := r.stop(); err != nil {
		t.Error(err)
	}
	for range events { // ends, or the test's time does
	}
}

func TestMonitor_ASlowReaderIsGivenUpAndNobodyWaitsForIt(t *testing.T) {
	r := serveStalling(t, 200*time.Millisecond, func(_ *api.ServerConfig, f *apitest.Fake) { f.Flood = true })
	slow := r.dial(t)
	fmt.Fprint(slow, "GET /v1/monitor HTTP/1.1\r\nHost: x\r\n\r\n")
	answer, err := http.ReadResponse(bufio.NewReader(slow), nil)
	if err != nil {
		t.Fatal(err)
	}

	fast, err := r.Monitor(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	until := time.Now().Add(time.Second)
	for time.Now().Before(until) { // while slow takes nothing
		<-fast
	}
	r.wantAlive(t)
	// What is still in the socket's buffer can be read, then the stream is cut:
	// not ended, as chunked encoding would say.
	if _, err := io.Copy(io.Discard, answer.Body); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("the slow reader's stream ended with %v, want a cut", err)
	}
}

func TestMonitor_HasABoundedNumberOfReaders(t *testing.T) {
	r := serve(t, nil)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	for range api.MaxMonitors {
		if _, err := r.Monitor(ctx); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := r.Monitor(ctx); !errors.Is(err, api.ErrUnavailable) {
		t.Errorf("one more: error %v, want unavailable", err)
	}
	if r.refusals("busy") != 1 {
		t.Error("not counted")
	}
	cancel()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		if _, err := r.Monitor(t.Context()); err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("readers that have gone still hold their places")
		}
	}
}
