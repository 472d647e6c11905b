package app

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net"

	"golang.org/x/sys/unix"
)

// The directions through the engine, and at the same time the port that a
// direction begins at.
const (
	inToOut = iota
	outToIn
	directions
)

var directionNames = [directions]string{"ids-in to ids-out", "ids-out to ids-in"}

const (
	// ethertypeCanary is the local experimental ethertype (IEEE 802): both engines
	// pass what is not IP, and bpf/ids.h hands it up on the IDS ports alone.
	ethertypeCanary = 0x88b5
	canaryLen       = 60 // the least that Ethernet carries, without its checksum
	// drainMost bounds the frames that are read at once: an engine that an attacker
	// has taken over may send any number.
	drainMost = 256
)

// canary sends small frames into one port of the engine and looks for them at the
// other. A frame on the wire: Ethernet header, nonce (16 bytes), direction (1),
// number in the row (8, big endian), zeros. Guests cannot bring one in: frames of
// that ethertype end at their vNIC. The nonce, new with every start, is for what a
// dead engine, or another daemon's, has left in a queue.
type canary struct {
	device [directions]string
	fd     [directions]int // AF_PACKET sockets on the devices; -1 for none
	header [14]byte
	nonce  [16]byte
	sent   [directions]uint64 // number of the last one
	seen   [directions]uint64 // the highest number that came back
	log    *slog.Logger
	said   string // the last error, which is not said again
}

// newCanary opens nothing yet. taken says whether a MAC address is a VM's.
func newCanary(in, out string, taken func(net.HardwareAddr) bool, log *slog.Logger) *canary {
	c := &canary{device: [directions]string{in, out}, fd: [directions]int{-1, -1}, log: log}
	_, _ = rand.Read(c.nonce[:]) // never fails
	for _, mac := range [][]byte{c.header[:6], c.header[6:12]} {
		for {
			_, _ = rand.Read(mac)
			mac[0] = mac[0]&^1 | 2 // unicast, locally administered
			if !taken(mac) {
				break
			}
		}
	}
	binary.BigEndian.PutUint16(c.header[12:], ethertypeCanary)
	return c
}

// send sends the next canary in each direction. What cannot be sent is missed like
// one that is lost, since packets to be checked would be as well.
func (c *canary) send() {
	for d := range c.fd {
		c.sent[d]++
		if err := c.write(d, c.frame(d, c.sent[d])); err != nil {
			c.failed(d, err)
		}
	}
}

// returned says of each direction whether a canary has come back since the last
// call: one that was really sent, and later than any before.
func (c *canary) returned() (back [directions]bool) {
	buf := make([]byte, canaryLen+1)
	for d := range back {
		far := directions - 1 - d
		for range drainMost {
			if c.fd[far] < 0 {
				break
			}
			n, _, err := unix.Recvfrom(c.fd[far], buf, unix.MSG_DONTWAIT)
			if errors.Is(err, unix.EAGAIN) {
				break
			}
			if err != nil {
				c.failed(far, err)
				break
			}
			back[d] = c.accept(d, buf[:n]) || back[d]
		}
	}
	return back
}

func (c *canary) frame(direction int, number uint64) []byte {
	b := make([]byte, 0, canaryLen)
	b = append(b, c.header[:]...)
	b = append(b, c.nonce[:]...)
	b = append(b, byte(direction))
	b = binary.BigEndian.AppendUint64(b, number)
	return b[:canaryLen]
}

// accept says whether a frame is a canary of ours that is not known yet.
func (c *canary) accept(direction int, frame []byte) bool {
	const numberAt = 14 + 16 + 1
	if len(frame) != canaryLen {
		return false
	}
	number := binary.BigEndian.Uint64(frame[numberAt:])
	if number <= c.seen[direction] || number > c.sent[direction] || !bytes.Equal(frame, c.frame(direction, number)) {
		return false
	}
	c.seen[direction] = number
	return true
}

func (c *canary) write(port int, frame []byte) (err error) {
	if c.fd[port] < 0 {
		if c.fd[port], err = openCanaryPort(c.device[port]); err != nil {
			return err
		}
	}
	_, err = unix.Write(c.fd[port], frame)
	return err
}

// openCanaryPort opens a packet socket for canaries alone, which is a plain
// system call or three: no library is needed.
func openCanaryPort(device string) (fd int, err error) {
	dev, err := net.InterfaceByName(device)
	if err != nil {
		return -1, err
	}
	protocol := binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, ethertypeCanary))
	fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return -1, err
	}
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: protocol, Ifindex: dev.Index}); err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// failed closes a port's socket, so that the next canary opens it again: the
// device may have been replaced.
func (c *canary) failed(port int, err error) {
	if c.fd[port] >= 0 {
		unix.Close(c.fd[port])
		c.fd[port] = -1
	}
	if text := fmt.Sprintf("%s: %v", c.device[port], err); text != c.said {
		c.said = text
		c.log.Warn("cannot send canaries through the IDS", "device", c.device[port], "error", err)
	}
}

func (c *canary) close() {
	for _, fd := range c.fd {
		if fd >= 0 {
			unix.Close(fd)
		}
	}
}
