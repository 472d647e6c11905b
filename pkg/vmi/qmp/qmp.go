// Package qmp is a client of QEMU's monitor protocol, for the few questions that
// introspection has. It is our own because the kept libraries neither end with a
// context nor bound what a monitor may answer, and a monitor is as hostile as
// the guest that may have taken it over.
package qmp

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

var (
	// ErrBusy: the monitor has another client, and serves one at a time.
	ErrBusy = errors.New("the monitor does not answer: it serves one client at a time and probably has another (libvirt, a management tool); give QEMU one more monitor with -qmp")
	// ErrGone: the connection has ended, as it does with QEMU itself.
	ErrGone = errors.New("the monitor is gone")
)

// Bounds of what a monitor may send. The longest answer that is asked for is the
// registers of a processor, some 4 KiB.
const (
	maxMessage = 1 << 20 // bytes of one message
	maxEvents  = 10_000  // events before an answer
)

// greetTimeout is how long a free monitor may take to greet; one that is taken
// accepts the connection and stays silent.
const greetTimeout = 3 * time.Second

// Error is what QEMU answers to a command that it refuses.
type Error struct {
	Class string `json:"class"`
	Desc  string `json:"desc"`
}

func (e *Error) Error() string { return fmt.Sprintf("QEMU says: %s", clip(e.Desc)) }

// clip bounds what of a monitor's words gets into a message.
func clip(s string) string {
	const limit = 300
	if len(s) > limit {
		return s[:limit] + "…"
	}
	return s
}

// Monitor is a connection to a monitor. Its methods may be called concurrently;
// they run one after the other.
type Monitor struct {
	conn *net.UnixConn
	peer *unix.Ucred // who answers

	mu    sync.Mutex
	in    *reader
	next  uint64
	ended error // why the connection cannot be used any more
}

// Dial connects to the unix socket of a monitor in control mode. The caller
// closes it.
func Dial(ctx context.Context, path string) (*Monitor, error) {
	m, err := dial(ctx, path)
	if err != nil {
		return nil, fmt.Errorf("cannot talk to the monitor %s: %w", path, err)
	}
	return m, nil
}

func dial(ctx context.Context, path string) (*Monitor, error) {
	var d net.Dialer
	ctx, cancel := context.WithTimeout(ctx, greetTimeout)
	defer cancel()
	conn, err := d.DialContext(ctx, "unix", path)
	if err != nil {
		if errors.Is(err, unix.EAGAIN) || errors.Is(err, context.DeadlineExceeded) { // its backlog is full
			err = ErrBusy
		}
		return nil, err
	}
	m := &Monitor{conn: conn.(*net.UnixConn)}
	m.in = &reader{from: bufio.NewReaderSize(conn, 64<<10)}
	if m.peer, err = peerOf(m.conn); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	if err = m.greet(ctx); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return m, nil
}

func peerOf(conn *net.UnixConn) (peer *unix.Ucred, err error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	var inner error
	err = raw.Control(func(fd uintptr) { peer, inner = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED) })
	return peer, errors.Join(err, inner)
}

// greet takes QEMU's greeting and leaves the negotiation of capabilities, of
// which none is needed.
func (m *Monitor) greet(ctx context.Context) error {
	stop := m.bound(ctx)
	defer stop()
	message, err := m.in.message()
	switch {
	case err != nil && ctx.Err() != nil:
		return ErrBusy
	case err != nil:
		return err
	case message.QMP == nil:
		return errors.New("it does not greet as a monitor in control mode does: is it the human one?")
	}
	return m.command(ctx, "qmp_capabilities", nil, nil, nil)
}

// PID is the process that made the monitor's socket: QEMU, or who started it
// with the socket open.
func (m *Monitor) PID() int { return int(m.peer.Pid) }

// Execute runs a command and decodes its result, unless into is nil. An *Error
// is QEMU's refusal; after any other error the connection is of no more use.
func (m *Monitor) Execute(ctx context.Context, command string, arguments, into any) error {
	return m.execute(ctx, command, arguments, into, nil)
}

// SendFile gives QEMU a descriptor of its own of the file, and returns the
// descriptor's number there. QEMU closes it when the connection ends.
func (m *Monitor) SendFile(ctx context.Context, fd int) (int, error) {
	var answer struct {
		FD int `json:"fd"`
	}
	err := m.execute(ctx, "add-fd", nil, &answer, unix.UnixRights(fd))
	if err == nil && answer.FD < 0 {
		err = fmt.Errorf("add-fd gives descriptor %d", answer.FD)
	}
	return answer.FD, err
}

// Human runs a command of the human monitor and returns its text.
func (m *Monitor) Human(ctx context.Context, line string) (string, error) {
	var text string
	arguments := struct {
		Line string `json:"command-line"`
	}{line}
	err := m.Execute(ctx, "human-monitor-command", arguments, &text)
	return text, err
}

func (m *Monitor) execute(ctx context.Context, command string, arguments, into any, rights []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.ended != nil {
		return m.ended
	}
	stop := m.bound(ctx)
	defer stop()
	err := m.command(ctx, command, arguments, into, rights)
	if refused := (*Error)(nil); err != nil && !errors.As(err, &refused) {
		// An answer that comes late would be taken for the next one's.
		m.ended = fmt.Errorf("%w: %w", ErrGone, err)
		_ = m.conn.Close()
	}
	if err != nil {
		return fmt.Errorf("monitor command %s: %w", command, err)
	}
	return nil
}

// bound ends what the connection is doing when ctx ends.
func (m *Monitor) bound(ctx context.Context) (stop func()) {
	_ = m.conn.SetDeadline(time.Time{})
	done := make(chan struct{})
	release := context.AfterFunc(ctx, func() {
		defer close(done)
		_ = m.conn.SetDeadline(time.Unix(1, 0))
	})
	return func() {
		if !release() {
			<-done // not in the middle of the next command
		}
	}
}

// command sends a command and waits for its answer. The caller holds mu.
func (m *Monitor) command(ctx context.Context, command string, arguments, into any, rights []byte) error {
	m.next++
	request, err := json.Marshal(struct {
		Execute   string `json:"execute"`
		Arguments any    `json:"arguments,omitempty"`
		ID        uint64 `json:"id"`
	}{command, arguments, m.next})
	if err != nil {
		return err
	}
	if _, _, err = m.conn.WriteMsgUnix(append(request, '\n'), rights, nil); err == nil {
		err = m.in.answer(m.next, into)
	}
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return err
}

// Close ends the connection.
func (m *Monitor) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.ended == nil {
		m.ended = ErrGone
		return m.conn.Close()
	}
	return nil
}
