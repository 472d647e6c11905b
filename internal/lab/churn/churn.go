// Package churn asks questions whose answer is known: who in a guest sent this
// packet? The guest's packets, which the workload's churn sends, say so
// themselves.
package churn

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"golang.org/x/sys/unix"

	"github.com/vmgate/vmgate/internal/lab"
)

// Where the guest's packets go: to nobody, so that no answer ever ends a
// connection.
var (
	guestAddr = netip.MustParsePrefix("10.78.0.11/24")
	target    = netip.MustParseAddrPort("10.78.0.1:9")
	guestMAC  = net.HardwareAddr{0x02, 0x78, 0, 0, 0, 0x11}
	targetMAC = net.HardwareAddr{0x02, 0x78, 0, 0, 0, 0x01}
)

// Guest is a guest with one network card, whose packets are seen here.
type Guest struct {
	*lab.Guest
	lab    *lab.Lab
	packet int
	buf    []byte
	closed bool
}

// Question is a packet's source and, as the answer, the pid of its sender.
type Question struct {
	PID           uint32
	Proto         uint8
	Local, Remote netip.AddrPort
	At            time.Time // when it was taken from the network
}

// Start boots a guest; config's name, memory and CPUs are taken.
func Start(ctx context.Context, config lab.GuestConfig) (_ *Guest, err error) {
	g := &Guest{packet: -1, buf: make([]byte, 2048)}
	if g.lab, err = lab.New(nil); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, g.Close())
		}
	}()
	namespace, err := g.lab.NewNamespace("churn")
	if err != nil {
		return nil, err
	}
	file, err := namespace.AddTap("tap0")
	if err != nil {
		return nil, err
	}
	if err := namespace.Do(func() error { return g.listen("tap0") }); err != nil {
		return nil, err
	}
	config.NICs = []lab.NIC{{MAC: guestMAC, Tap: file, Addresses: []netip.Prefix{guestAddr}}}
	if g.Guest, err = lab.StartGuest(ctx, config); err != nil {
		return nil, err
	}
	_, status, err := g.Run(ctx, fmt.Sprintf("arp -s %s %s", target.Addr(), targetMAC))
	if err == nil && status != 0 {
		err = fmt.Errorf("arp ended with status %d", status)
	}
	return g, err
}

// listen opens the packet socket by which the guest's packets are seen.
func (g *Guest) listen(device string) error {
	dev, err := net.InterfaceByName(device)
	if err != nil {
		return err
	}
	ip := binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, unix.ETH_P_IP))
	if g.packet, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0); err != nil {
		return fmt.Errorf("cannot open a packet socket: %w", err)
	}
	return errors.Join(
		unix.SetsockoptInt(g.packet, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 16<<20),
		unix.SetsockoptTimeval(g.packet, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 100_000}),
		unix.Bind(g.packet, &unix.SockaddrLinklayer{Ifindex: dev.Index, Protocol: ip}))
}

// Churn starts children that send; more are arguments of the workload's churn.
func (g *Guest) Churn(ctx context.Context, more ...string) (*lab.Process, error) {
	return g.Start(ctx, "churn", append(append([]string{"churn"}, more...), target.String())...)
}

// Next waits for the next packet of a child; one that lives for more than a
// second repeats that of TCP. ok is false when none has come for a second.
func (g *Guest) Next(ctx context.Context) (q Question, ok bool, err error) {
	for idle := 0; idle < 10; {
		n, from, err := unix.Recvfrom(g.packet, g.buf, 0)
		switch {
		case ctx.Err() != nil:
			return q, false, ctx.Err()
		case errors.Is(err, unix.EAGAIN):
			idle++
			continue
		case errors.Is(err, unix.EINTR):
			continue
		case err != nil:
			return q, false, fmt.Errorf("cannot read the guest's packets: %w", err)
		}
		if l, isLink := from.(*unix.SockaddrLinklayer); isLink && l.Pkttype == unix.PACKET_OUTGOING {
			continue
		}
		if q, ok := question(g.buf[:n]); ok {
			q.At = time.Now()
			return q, true, nil
		}
	}
	return q, false, nil
}

// question reads a child's packet.
func question(frame []byte) (q Question, ok bool) {
	p := gopacket.NewPacket(frame, layers.LayerTypeEthernet, gopacket.DecodeOptions{NoCopy: true, Lazy: true})
	ip, ok := p.NetworkLayer().(*layers.IPv4)
	if !ok {
		return q, false
	}
	src, _ := netip.AddrFromSlice(ip.SrcIP.To4())
	dst, _ := netip.AddrFromSlice(ip.DstIP.To4())
	q.Proto = uint8(ip.Protocol)
	switch l := p.TransportLayer().(type) {
	case *layers.UDP:
		q.Local, q.Remote = netip.AddrPortFrom(src, uint16(l.SrcPort)), netip.AddrPortFrom(dst, uint16(l.DstPort))
		if len(l.Payload) != 8 {
			return q, false
		}
		q.PID = uint32(binary.LittleEndian.Uint64(l.Payload))
	case *layers.TCP:
		q.Local, q.Remote = netip.AddrPortFrom(src, uint16(l.SrcPort)), netip.AddrPortFrom(dst, uint16(l.DstPort))
		q.PID = uint32(l.DstPort)
	default:
		return q, false
	}
	return q, dst == target.Addr()
}

// Close ends the guest and removes its network. It may be called more than once.
func (g *Guest) Close() (err error) {
	if g.closed {
		return nil
	}
	g.closed = true
	if g.Guest != nil {
		err = g.Guest.Close()
	}
	if g.packet >= 0 {
		err = errors.Join(err, unix.Close(g.packet))
	}
	return errors.Join(err, g.lab.Close())
}
