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

// refusedAfter is how long a connection that must not come about is tried: two
// retransmissions of a SYN.
const refusedAfter = 3500 * time.Millisecond

func address(h *lab.Host, port int, six bool) string {
	addr := h.V4.Addr()
	if six {
		addr = h.V6.Addr()
	}
	return netip.AddrPortFrom(addr, uint16(port)).String()
}

// serve echoes TCP on a port of a host until the test ends.
func serve(t *testing.T, h *lab.Host, port int) {
	t.Helper()
	var l net.Listener
	must(t, h.Namespace.Do(func() (err error) {
		l, err = net.Listen("tcp", fmt.Sprintf(":%d", port))
		return err
	}))
	var running sync.WaitGroup
	var mu sync.Mutex
	var open []net.Conn
	running.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			open = append(open, conn)
			mu.Unlock()
			running.Go(func() {
				defer conn.Close()
				_, _ = io.Copy(conn, conn)
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		mu.Lock()
		for _, conn := range open {
			conn.Close()
		}
		mu.Unlock()
		running.Wait()
	})
}

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

// echo connects, sends some bytes, wants them back, and tells how many segments
// had to be sent again.
func echo(from *lab.Host, to string, size int) (retransmitted uint32, err error) {
	conn, err := dial(from, to, refusedAfter)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return 0, err
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
		return 0, err
	}
	if !bytes.Equal(sent, got) {
		return 0, errors.New("the echo differs")
	}
	return retransmissions(conn)
}

func retransmissions(conn *net.TCPConn) (n uint32, err error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return 0, err
	}
	var infoErr error
	err = raw.Control(func(fd uintptr) {
		var info *unix.TCPInfo
		if info, infoErr = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO); infoErr == nil {
			n = info.Total_retrans
		}
	})
	return n, errors.Join(err, infoErr)
}

// tcpStream is a connection that sends numbered words to an echo server for as long
// as it may, and checks each that comes back.
type tcpStream struct {
	conn    *net.TCPConn
	source  int
	words   atomic.Int64 // that came back right
	stopped atomic.Bool
	done    sync.WaitGroup

	sendErr, readErr error // valid once done
}

// newStream starts a stream to an echo server; the test ends it.
func newStream(t *testing.T, from *lab.Host, to string) *tcpStream {
	t.Helper()
	conn, err := dial(from, to, patience)
	must(t, err)
	s := &tcpStream{conn: conn, source: conn.LocalAddr().(*net.TCPAddr).Port}
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
		time.Sleep(2 * time.Millisecond) // some 4 MB/s: a stream, not a test of the machine
	}
	return s.conn.CloseWrite()
}

func (s *tcpStream) read() error {
	buffer := make([]byte, 8*chunk)
	for next := uint64(0); ; {
		n, err := io.ReadFull(s.conn, buffer)
		if err == io.EOF && s.stopped.Load() {
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

// finish ends the stream in good order and wants it whole.
func (s *tcpStream) finish(t *testing.T) (retransmitted uint32) {
	t.Helper()
	n, err := retransmissions(s.conn)
	must(t, err)
	s.stopped.Store(true)
	must(t, s.conn.SetDeadline(time.Now().Add(patience)))
	s.done.Wait()
	if err := errors.Join(s.sendErr, s.readErr); err != nil {
		t.Errorf("the stream broke: %v", err)
	}
	return n
}
