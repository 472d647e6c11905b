package e2e_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vmgate/vmgate/internal/lab"
)

// refusedAfter is how long a connection that must not come about is tried: one
// retransmission of a SYN.
const refusedAfter = 1500 * time.Millisecond

func address(h *lab.Host, port int, six bool) string {
	addr := h.V4.Addr()
	if six {
		addr = h.V6.Addr()
	}
	return netip.AddrPortFrom(addr, uint16(port)).String()
}

// server echoes TCP on a port of a host.
type server struct {
	host *lab.Host
	port int

	mu   sync.Mutex
	open map[int]*net.TCPConn // by the client's port
}

// serve runs a server until the test ends.
func serve(t *testing.T, h *lab.Host, port int) *server {
	t.Helper()
	var l net.Listener
	must(t, h.Namespace.Do(func() (err error) {
		l, err = net.Listen("tcp", fmt.Sprintf(":%d", port))
		return err
	}))
	s := &server{host: h, port: port, open: map[int]*net.TCPConn{}}
	var running sync.WaitGroup
	running.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			conn := c.(*net.TCPConn)
			s.mu.Lock()
			s.open[portOf(conn.RemoteAddr())] = conn
			s.mu.Unlock()
			running.Go(func() {
				defer conn.Close()
				_, _ = io.Copy(conn, struct{ io.Reader }{conn}) // not spliced: the plain way
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		s.mu.Lock()
		for _, conn := range s.open {
			conn.Close()
		}
		s.mu.Unlock()
		running.Wait()
	})
	return s
}

func (s *server) address(six bool) string { return address(s.host, s.port, six) }

// end is the server's end of a connection from a port.
func (s *server) end(source int) *net.TCPConn {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.open[source]
}

func portOf(a net.Addr) int { return a.(*net.TCPAddr).Port }

// absorb takes UDP datagrams in on a port of a host until the test ends, so that
// its kernel does not answer them with ICMP.
func absorb(t *testing.T, h *lab.Host, port int) {
	t.Helper()
	must(t, h.Namespace.Do(func() error {
		conn, err := net.ListenPacket("udp", fmt.Sprintf(":%d", port))
		if err == nil {
			t.Cleanup(func() { conn.Close() })
		}
		return err
	}))
}

// dial connects from a host.
func dial(from *lab.Host, to string, timeout time.Duration) (conn *net.TCPConn, err error) {
	err = from.Namespace.Do(func() error {
		c, err := (&net.Dialer{Timeout: timeout, KeepAlive: -1}).Dial("tcp", to)
		if err == nil {
			conn = c.(*net.TCPConn)
		}
		return err
	})
	return conn, err
}

// echo connects, sends some bytes, wants them back, and tells how many SYNs had
// to be sent again. (Later segments may be: the kernel probes when a busy machine
// is late, though none was lost.)
func echo(from *lab.Host, to string, size int) (again uint32, err error) {
	conn, err := dial(from, to, refusedAfter)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	info, err := infoOf(conn)
	if err != nil {
		return 0, err
	}
	again = info.Total_retrans
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return again, err
	}
	sent := make([]byte, size)
	for i := range sent {
		sent[i] = byte(i * 7)
	}
	wrote := make(chan error, 1)
	go func() {
		_, err := conn.Write(sent)
		wrote <- err
	}()
	got := make([]byte, size)
	_, err = io.ReadFull(conn, got)
	if err = errors.Join(err, <-wrote); err != nil {
		return again, err
	}
	if !bytes.Equal(sent, got) {
		return again, errors.New("the echo differs")
	}
	return again, nil
}

func infoOf(conn *net.TCPConn) (info *unix.TCPInfo, err error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	var infoErr error
	err = raw.Control(func(fd uintptr) {
		info, infoErr = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
	})
	return info, errors.Join(err, infoErr)
}

// tcpStream is a connection that sends numbered words to an echo server for as long
// as it may, and checks each that comes back.
type tcpStream struct {
	conn    *net.TCPConn
	to      *server
	source  int
	sent    atomic.Int64 // words
	words   atomic.Int64 // that came back right
	stopped atomic.Bool
	done    sync.WaitGroup

	sendErr, readErr error // valid once done
}

// newStream starts a stream to a server; the test ends it.
func newStream(t *testing.T, from *lab.Host, to *server, six bool) *tcpStream {
	t.Helper()
	conn, err := dial(from, to.address(six), patience)
	must(t, err)
	s := &tcpStream{conn: conn, to: to, source: portOf(conn.LocalAddr())}
	s.done.Go(func() { s.sendErr = s.send() })
	s.done.Go(func() { s.readErr = s.read() })
	t.Cleanup(func() { s.stopped.Store(true); conn.Close(); s.done.Wait() })
	s.moves(t)
	return s
}

const chunk = 1024 // words

func (s *tcpStream) send() error {
	buffer := make([]byte, 8*chunk)
	for next := uint64(0); !s.stopped.Load(); {
		for i := range chunk {
			binary.LittleEndian.PutUint64(buffer[8*i:], next)
			next++
		}
		if _, err := s.conn.Write(buffer); err != nil {
			return err
		}
		s.sent.Store(int64(next))
		time.Sleep(2 * time.Millisecond) // some 4 MB/s: a stream, not a test of the machine
	}
	return nil
}

func (s *tcpStream) read() error {
	buffer := make([]byte, 8*chunk)
	for next := uint64(0); ; {
		n, err := io.ReadFull(s.conn, buffer)
		if s.stopped.Load() && errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("after %d words: %w", next, err)
		}
		for i := range n / 8 {
			if got := binary.LittleEndian.Uint64(buffer[8*i:]); got != next {
				return fmt.Errorf("word %d came back as %d", next, got)
			}
			next++
		}
		s.words.Store(int64(next))
	}
}

// moves waits until the stream has got on by a good deal.
func (s *tcpStream) moves(t *testing.T) {
	t.Helper()
	from := s.words.Load()
	await(t, "the stream moves", func() bool { return s.words.Load() > from+20*chunk })
}

// stalls waits until nothing comes back any more.
func (s *tcpStream) stalls(t *testing.T) {
	t.Helper()
	last, since := s.words.Load(), time.Now()
	await(t, "the stream stalls", func() bool {
		if now := s.words.Load(); now != last {
			last, since = now, time.Now()
		}
		return time.Since(since) > 500*time.Millisecond
	})
}

// finish ends the stream in good order and wants all of its words to have come
// back. It returns how many segments were lost on the way, by what both ends
// sent and received.
func (s *tcpStream) finish(t *testing.T) (lost int64) {
	t.Helper()
	s.stopped.Store(true)
	await(t, "the rest of the stream comes back", func() bool { return s.sent.Load() == s.words.Load() })
	for range 25 { // until the last acknowledgements are under way no more
		here, err := infoOf(s.conn)
		must(t, err)
		there, err := infoOf(s.to.end(s.source))
		must(t, err)
		// The server's socket is made after SYN and SYN-ACK, and does not count them.
		lost = int64(here.Segs_out) - 1 - int64(there.Segs_in) + int64(there.Segs_out) + 1 - int64(here.Segs_in)
		if lost == 0 {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	s.conn.Close()
	s.done.Wait()
	if err := errors.Join(s.sendErr, s.readErr); err != nil {
		t.Errorf("the stream broke: %v", err)
	}
	return lost
}
