package e2e_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net"
	"slices"
	"sync"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/vmgate/vmgate/internal/lab"
)

// capture keeps every frame that comes in by an interface, as it was on the wire.
type capture struct {
	mu     sync.Mutex
	frames [][]byte
	grown  chan struct{} // closed and replaced when a frame comes
}

// listen captures what comes in by an interface, until the test ends. On a
// vSwitch's port that is what the gateway sends there.
func listen(t *testing.T, ns *lab.Namespace, name string) *capture {
	t.Helper()
	return captureOn(t, packetSocket(t, ns, name, unix.ETH_P_ALL))
}

// captureOn captures what comes in by a packet socket of all protocols, which it
// closes.
func captureOn(t *testing.T, fd int) *capture {
	t.Helper()
	must(t, errors.Join(
		unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_AUXDATA, 1),
		unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1),
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 32<<20),
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 50_000}),
	))
	c, stop, ended := &capture{grown: make(chan struct{})}, make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		c.read(fd, stop)
	}()
	t.Cleanup(func() { close(stop); <-ended; unix.Close(fd) })
	return c
}

func packetSocket(t *testing.T, ns *lab.Namespace, name string, protocol uint16) (fd int) {
	t.Helper()
	must(t, ns.Do(func() (err error) {
		fd, err = openPacketSocket(name, protocol)
		return err
	}))
	return fd
}

func openPacketSocket(name string, protocol uint16) (fd int, err error) {
	dev, err := net.InterfaceByName(name)
	if err != nil {
		return -1, err
	}
	if fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0); err != nil {
		return -1, err
	}
	order := binary.BigEndian.AppendUint16(nil, protocol)
	return fd, unix.Bind(fd, &unix.SockaddrLinklayer{Ifindex: dev.Index, Protocol: binary.NativeEndian.Uint16(order)})
}

func (c *capture) read(fd int, stop <-chan struct{}) {
	frame, control := make([]byte, 65536), make([]byte, 256)
	for {
		n, m, _, _, err := unix.Recvmsg(fd, frame, control, 0)
		if err == nil {
			c.add(withTag(frame[:n], control[:m]))
			continue
		}
		select {
		case <-stop:
			return
		default: // a timeout, or the interface is down for a moment
		}
		if !errors.Is(err, unix.EAGAIN) {
			time.Sleep(time.Millisecond)
		}
	}
}

// withTag copies a frame and puts the outer tag back, which the kernel keeps
// beside it.
func withTag(frame, control []byte) []byte {
	messages, err := unix.ParseSocketControlMessage(control)
	if err != nil {
		return slices.Clone(frame)
	}
	for _, m := range messages {
		if m.Header.Type != unix.PACKET_AUXDATA {
			continue
		}
		aux := (*unix.TpacketAuxdata)(unsafe.Pointer(&m.Data[0]))
		if aux.Status&unix.TP_STATUS_VLAN_VALID == 0 {
			break
		}
		tagged := append(slices.Clone(frame[:12]), byte(aux.Vlan_tpid>>8), byte(aux.Vlan_tpid), byte(aux.Vlan_tci>>8), byte(aux.Vlan_tci))
		return append(tagged, frame[12:]...)
	}
	return slices.Clone(frame)
}

func (c *capture) add(frame []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.frames = append(c.frames, frame)
	close(c.grown)
	c.grown = make(chan struct{})
}

// seen returns the frames so far that match accepts.
func (c *capture) seen(match func([]byte) bool) (found [][]byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, f := range c.frames {
		if match(f) {
			found = append(found, f)
		}
	}
	return found
}

// wait returns the first frame that match accepts.
func (c *capture) wait(t *testing.T, what string, match func([]byte) bool) []byte {
	t.Helper()
	ctx := soon(t)
	for {
		c.mu.Lock()
		grown := c.grown
		c.mu.Unlock()
		if found := c.seen(match); len(found) > 0 {
			return found[0]
		}
		select {
		case <-ctx.Done():
			t.Fatalf("did not arrive: %s", what)
		case <-grown:
		}
	}
}

// carries matches frames with some bytes in them.
func carries(payload string) func([]byte) bool {
	return func(f []byte) bool { return bytes.Contains(f, []byte(payload)) }
}

func sentTo(mac net.HardwareAddr) func([]byte) bool {
	return func(f []byte) bool { return bytes.Equal(f[:6], mac) }
}
