package bench_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"testing"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/vmgate/vmgate/internal/lab"
)

// tap is a packet socket on a device, for IPv4. It does not block.
type tap struct {
	fd       int
	outgoing bool // it returns what the device sends, not what it receives
}

func openTap(b *testing.B, device string) *tap {
	b.Helper()
	dev, err := net.InterfaceByName(device)
	must(b, err)
	all := binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, unix.ETH_P_ALL)) // of one protocol only what comes in
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	must(b, err)
	b.Cleanup(func() { unix.Close(fd) })
	must(b, errors.Join(
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TIMESTAMPNS, 1),
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 8<<20),
		unix.Bind(fd, &unix.SockaddrLinklayer{Ifindex: dev.Index, Protocol: all}),
	))
	return &tap{fd: fd}
}

func tapOn(b *testing.B, h *lab.Host) (t *tap) {
	b.Helper()
	must(b, h.Namespace.Do(func() error { t = openTap(b, h.Interface); return nil }))
	return t
}

// tapIn opens a tap in a named namespace that no lab made.
func tapIn(b *testing.B, namespace, device string) *tap {
	b.Helper()
	home, err := netns.Get() // the caller's thread is locked
	must(b, err)
	defer home.Close()
	there, err := netns.GetFromName(namespace)
	must(b, err)
	defer there.Close()
	must(b, netns.Set(there))
	defer func() { must(b, netns.Set(home)) }()
	return openTap(b, device)
}

// next returns the next packet that came in and when the kernel took it, by
// CLOCK_REALTIME; nil if there is none.
func (t *tap) next(b *testing.B) (frame []byte, at time.Time) {
	b.Helper()
	buf, control := make([]byte, 2048), make([]byte, 128)
	n, m, _, from, err := unix.Recvmsg(t.fd, buf, control, 0)
	if errors.Is(err, unix.EAGAIN) {
		return nil, at
	}
	must(b, err)
	if l, ok := from.(*unix.SockaddrLinklayer); ok && (l.Pkttype == unix.PACKET_OUTGOING) != t.outgoing {
		return t.next(b)
	}
	if n < 14 || binary.BigEndian.Uint16(buf[12:]) != unix.ETH_P_IP {
		return t.next(b)
	}
	messages, err := unix.ParseSocketControlMessage(control[:m])
	must(b, err)
	for _, c := range messages {
		if c.Header.Type == unix.SO_TIMESTAMPNS && len(c.Data) >= 16 {
			at = time.Unix(int64(binary.NativeEndian.Uint64(c.Data)), int64(binary.NativeEndian.Uint64(c.Data[8:])))
		}
	}
	return buf[:n], at
}

// send sends a frame, at once.
func (t *tap) send(b *testing.B, frame []byte) {
	b.Helper()
	_, err := unix.Write(t.fd, frame)
	must(b, err)
}

// push sends a frame as soon as the device takes it.
func (t *tap) push(b *testing.B, frame []byte) {
	b.Helper()
	for {
		switch _, err := unix.Write(t.fd, frame); {
		case err == nil:
			return
		case !errors.Is(err, unix.ENOBUFS) && !errors.Is(err, unix.EAGAIN):
			b.Error(err)
			return
		}
	}
}

// datagram builds a frame of UDP from one host to another.
func datagram(b *testing.B, from, to *lab.Host, source, port uint16, payload string) []byte {
	b.Helper()
	ip := &layers.IPv4{Version: 4, TTL: 64, Protocol: layers.IPProtocolUDP, SrcIP: from.V4.Addr().AsSlice(), DstIP: to.V4.Addr().AsSlice()}
	udp := &layers.UDP{SrcPort: layers.UDPPort(source), DstPort: layers.UDPPort(port)}
	must(b, udp.SetNetworkLayerForChecksum(ip))
	buffer := gopacket.NewSerializeBuffer()
	must(b, gopacket.SerializeLayers(buffer, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true},
		&layers.Ethernet{SrcMAC: from.MAC, DstMAC: to.MAC, EthernetType: layers.EthernetTypeIPv4}, ip, udp,
		gopacket.Payload(fmt.Sprintf("%-32s", payload))))
	return buffer.Bytes()
}
