package main

import (
	"context"
	"encoding/binary"
	"flag"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"syscall"
	"time"
)

// forge sends IPv4 packets by a packet socket, which no socket bound to their
// port explains: SYNs or datagrams from a source of its choice. It keeps the
// packet socket until it is ended.
func forge(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("forge", flag.ContinueOnError)
	source := flags.String("source", "", "address and port that they claim to come from")
	hardware := flags.String("mac", "", "MAC of the target or of the router to it")
	device := flags.String("device", "eth0", "interface")
	tcp := flags.Bool("tcp", false, "SYNs instead of datagrams")
	every := flags.Duration("every", 300*time.Millisecond, "from one to the next, each from the next port")
	target, err := parse(flags, args, 1)
	if err != nil {
		return err
	}
	from, err := netip.ParseAddrPort(*source)
	if err != nil {
		return fmt.Errorf("%w: -source: %w", errUsage, err)
	}
	to, err := netip.ParseAddrPort(target[0])
	if err != nil {
		return fmt.Errorf("%w: %w", errUsage, err)
	}
	mac, err := net.ParseMAC(*hardware)
	if err != nil {
		return fmt.Errorf("%w: -mac: %w", errUsage, err)
	}
	nic, err := net.InterfaceByName(*device)
	if err != nil {
		return err
	}
	fd, err := syscall.Socket(syscall.AF_PACKET, syscall.SOCK_DGRAM, 0)
	if err != nil {
		return err
	}
	defer syscall.Close(fd)
	link := &syscall.SockaddrLinklayer{Protocol: 0x0008, Ifindex: nic.Index, Halen: 6} // ETH_P_IP in network order
	copy(link.Addr[:], mac)
	for {
		if err := syscall.Sendto(fd, forged(from, to, *tcp), 0, link); err != nil {
			return err
		}
		print(map[string]any{"ok": true, "port": from.Port()})
		from = netip.AddrPortFrom(from.Addr(), from.Port()+1)
		if !pause(ctx, *every) {
			return ctx.Err()
		}
	}
}

// forged is a SYN or an empty datagram with its IPv4 header.
func forged(from, to netip.AddrPort, tcp bool) []byte {
	be := binary.BigEndian
	proto, payload, sum := byte(syscall.IPPROTO_UDP), make([]byte, 8), 6
	if tcp {
		proto, payload, sum = syscall.IPPROTO_TCP, make([]byte, 20), 16
		payload[12], payload[13] = 5<<4, 2
		be.PutUint16(payload[14:], 1024)
		be.PutUint32(payload[4:], 1)
	} else {
		be.PutUint16(payload[4:], uint16(len(payload)))
	}
	be.PutUint16(payload, from.Port())
	be.PutUint16(payload[2:], to.Port())
	src, dst := from.Addr().As4(), to.Addr().As4()
	be.PutUint16(payload[sum:], internetSum(slices.Concat(src[:], dst[:], []byte{0, proto, 0, byte(len(payload))}, payload)))
	ip := slices.Concat([]byte{0x45, 0, 0, byte(20 + len(payload)), 0, 1, 0, 0, 64, proto, 0, 0}, src[:], dst[:])
	be.PutUint16(ip[10:], internetSum(ip))
	return append(ip, payload...)
}

// internetSum is the checksum of the internet protocols, of an even number of bytes.
func internetSum(b []byte) uint16 {
	var sum uint32
	for ; len(b) > 0; b = b[2:] {
		sum += uint32(binary.BigEndian.Uint16(b))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}
