package snort

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"time"
)

// drainLimit bounds how long what the engine sent before its end is read.
const drainLimit = time.Second

// eveListener is the socket that Suricata sends its lines to. A stream, since
// Suricata then never waits for its reader: if that stalls, lines are dropped
// and packets go on.
type eveListener struct {
	listener *net.UnixListener
	to       *splitter

	mu   sync.Mutex
	conn *net.UnixConn // being read
	done bool
}

func listenEve(path string, to *splitter) (*eveListener, error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("cannot remove the old alert socket: %w", err)
	}
	// Closing the listener unlinks the path.
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("cannot listen for alerts: %w", err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		listener.Close()
		return nil, fmt.Errorf("cannot listen for alerts: %w", err)
	}
	return &eveListener{listener: listener, to: to}, nil
}

// serve reads one connection after the other: there is one engine at a time, and
// so its lines keep their order.
func (l *eveListener) serve(ctx context.Context) error {
	stop := context.AfterFunc(ctx, l.finish)
	defer stop()
	defer l.listener.Close()
	for {
		conn, err := l.listener.AcceptUnix()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("cannot accept the engine's alerts: %w", err)
		}
		l.read(conn)
	}
}

func (l *eveListener) read(conn *net.UnixConn) {
	defer conn.Close()
	l.mu.Lock()
	l.conn = conn
	if l.done {
		_ = conn.SetReadDeadline(time.Now().Add(drainLimit))
	}
	l.mu.Unlock()
	buf := make([]byte, maxLine)
	for {
		n, err := conn.Read(buf)
		_, _ = l.to.Write(buf[:n]) // never fails
		if err != nil {
			break // the engine's end, which its supervision tells about
		}
	}
	l.to.reset()
}

// finish ends serve.
func (l *eveListener) finish() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.done = true
	l.listener.Close()
	if l.conn != nil { // its error: it is closed already
		_ = l.conn.SetReadDeadline(time.Now().Add(drainLimit))
	}
}
