package snort

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// maxStreams bounds the connections of one listener, those that have not told who
// they are included. One more than there should ever be costs a file descriptor and
// a line's buffer.
const maxStreams = 16

// streams reads lines from several connections at once.
type streams struct {
	log       *slog.Logger
	connected *atomic.Int32
	to        func() *splitter // one for each connection
}

// listener is a socket to which those connect who send lines.
type listener struct {
	streams
	listener net.Listener
	// greet tells who is at the other end, or that he has no business here. The
	// connection that it returns is read.
	greet func(context.Context, net.Conn) (name string, conn net.Conn, err error)

	reading sync.WaitGroup
	mu      sync.Mutex
	conns   map[net.Conn]string // to the name of the sender; "" if that is not known yet
	ended   bool
}

// listenLines listens on a unix stream socket. Whoever may write to its path may
// send alerts: it is for root, and for whom the directory is open.
func listenLines(path string, s streams) (*listener, error) {
	l, err := listenUnix(path)
	if err != nil {
		return nil, err
	}
	return &listener{streams: s, listener: l, greet: func(_ context.Context, conn net.Conn) (string, net.Conn, error) {
		return "", conn, nil
	}}, nil
}

func listenUnix(path string) (net.Listener, error) {
	if err := removeSocket(path); err != nil {
		return nil, err
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("cannot listen for alerts: %w", err)
	}
	if err := os.Chmod(path, 0o660); err != nil {
		l.Close()
		return nil, fmt.Errorf("cannot listen for alerts: %w", err)
	}
	return l, nil
}

// removeSocket removes a socket that an earlier daemon left, and nothing else.
func removeSocket(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err == nil && info.Mode().Type() != os.ModeSocket {
		err = fmt.Errorf("%s is there and no socket", path)
	}
	if err == nil {
		err = os.Remove(path)
	}
	if err != nil {
		return fmt.Errorf("cannot listen for alerts: %w", err)
	}
	return nil
}

// serve takes connections until ctx ends.
func (l *listener) serve(ctx context.Context) error {
	defer l.reading.Wait()
	stop := context.AfterFunc(ctx, l.end)
	defer stop()
	defer l.end()
	for {
		conn, err := l.listener.Accept()
		switch {
		case ctx.Err() != nil:
			if err == nil {
				conn.Close()
			}
			return nil
		case errors.Is(err, net.ErrClosed):
			return fmt.Errorf("cannot accept connections for alerts: %w", err)
		case err != nil: // no descriptors left, or the other end has gone again
			l.log.Error("cannot accept a connection for alerts", "error", err)
			select {
			case <-ctx.Done():
			case <-time.After(100 * time.Millisecond):
			}
			continue
		}
		if !l.admit(conn) {
			l.log.Warn("too many connections for alerts: one more is refused", "from", conn.RemoteAddr(), "limit", maxStreams)
			conn.Close()
			continue
		}
		l.reading.Go(func() { l.read(ctx, conn) })
	}
}

func (l *listener) admit(conn net.Conn) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended || len(l.conns) >= maxStreams {
		return false
	}
	if l.conns == nil {
		l.conns = map[net.Conn]string{}
	}
	l.conns[conn] = ""
	return true
}

// read reads one connection to its end.
func (l *listener) read(ctx context.Context, raw net.Conn) {
	defer func() {
		raw.Close()
		l.mu.Lock()
		delete(l.conns, raw)
		l.mu.Unlock()
	}()
	name, conn, err := l.greet(ctx, raw)
	if err != nil {
		if ctx.Err() == nil {
			l.log.Warn("a connection for alerts is refused", "from", raw.RemoteAddr(), "error", err)
		}
		return
	}
	l.replace(raw, name)
	l.connected.Add(1)
	defer l.connected.Add(-1)
	l.log.Info("alerts are being sent", "by", name, "from", raw.RemoteAddr())
	to, buf := l.to(), make([]byte, maxLine)
	for {
		n, err := conn.Read(buf)
		_, _ = to.Write(buf[:n]) // never fails
		if err != nil {
			break // the sender's end, or ours
		}
	}
	if ctx.Err() == nil {
		l.log.Warn("alerts are no longer being sent", "by", name, "from", raw.RemoteAddr())
	}
}

// replace ends the other connections of the same name: the sender has moved, and its
// old machine may be gone without a word.
func (l *listener) replace(by net.Conn, name string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if name != "" {
		for conn, other := range l.conns {
			if other == name {
				conn.Close()
			}
		}
	}
	l.conns[by] = name
}

func (l *listener) end() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ended = true
	l.listener.Close() // its error: it is closed already
	for conn := range l.conns {
		conn.Close()
	}
}
