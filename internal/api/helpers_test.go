package api_test

import (
	"context"
	"log/slog"
	"net"
	"os"
	"os/user"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/vmgate/vmgate/internal/api"
	"github.com/vmgate/vmgate/internal/api/apitest"
)

// running is a server over a fake, with what it has refused.
type running struct {
	*api.Client
	fake *apitest.Fake
	path string
	stop func() error // ends the server, once, and returns its error

	mu      sync.Mutex
	refused map[string]int
}

func (r *running) refusals(reason string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.refused[reason]
}

// serve starts a server that ends with the test.
func serve(t *testing.T, change func(*api.ServerConfig, *apitest.Fake)) *running {
	t.Helper()
	return serveStalling(t, 10*time.Second, change)
}

// serveStalling is serve with the time after which a stalled reader is given up.
func serveStalling(t *testing.T, stall time.Duration, change func(*api.ServerConfig, *apitest.Fake)) *running {
	t.Helper()
	r := &running{fake: apitest.New(), path: filepath.Join(shortDir(t), "s"), refused: map[string]int{}}
	config := api.ServerConfig{Path: r.path, Backend: r.fake, Log: slog.New(slog.DiscardHandler), Refused: func(reason string) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.refused[reason]++
	}}
	if change != nil {
		change(&config, r.fake)
	}
	server, err := api.Listen(config)
	if err != nil {
		t.Fatal(err)
	}
	server.SetStall(stall)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- server.Serve(ctx) }()
	r.Client = api.NewClient(r.path)
	r.stop = sync.OnceValue(func() error { cancel(); return <-done })
	t.Cleanup(func() {
		if err := r.stop(); err != nil {
			t.Errorf("Serve: %v", err)
		}
	})
	return r
}

// shortDir is a directory whose path leaves room for a socket's name and which
// other users may enter, unlike t.TempDir.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "vmgate-api-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// dial opens a bare connection that ends with the test.
func (r *running) dial(t *testing.T) net.Conn {
	t.Helper()
	conn, err := net.Dial("unix", r.path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second)) // a hanging server fails the test, and does not hang it
	return conn
}

// wantAlive fails the test if the server does not answer any more.
func (r *running) wantAlive(t *testing.T) {
	t.Helper()
	if s, err := r.Status(t.Context()); err != nil || s.PID != 4711 {
		t.Errorf("the server does not answer any more: %v, %v", s, err)
	}
}

func userName(t *testing.T) string {
	t.Helper()
	me, err := user.Current()
	if err != nil {
		t.Fatal(err)
	}
	return me.Username
}
