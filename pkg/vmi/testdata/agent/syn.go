package main

import (
	"encoding/binary"
	"net/netip"
	"slices"
	"strings"
	"syscall"
)

// syn sends "SOURCE,DESTINATION" a SYN whose answer nobody waits for.
func syn(ends string) error {
	from, to, _ := strings.Cut(ends, ",")
	src, err := netip.ParseAddrPort(from)
	if err != nil {
		return err
	}
	dst, err := netip.ParseAddrPort(to)
	if err != nil {
		return err
	}
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_RAW, syscall.IPPROTO_RAW)
	if err != nil {
		return err
	}
	defer syscall.Close(fd)
	return syscall.Sendto(fd, segment(src, dst), 0, &syscall.SockaddrInet4{Addr: dst.Addr().As4()})
}

// segment is a TCP SYN with its IPv4 header, whose checksum the kernel fills in.
func segment(src, dst netip.AddrPort) []byte {
	be := binary.BigEndian
	s, d := src.Addr().As4(), dst.Addr().As4()
	tcp := make([]byte, 20)
	be.PutUint16(tcp, src.Port())
	be.PutUint16(tcp[2:], dst.Port())
	be.PutUint32(tcp[4:], 1)
	tcp[12], tcp[13] = 5<<4, 2
	be.PutUint16(tcp[14:], 1024)
	pseudo := slices.Concat(s[:], d[:], []byte{0, syscall.IPPROTO_TCP, 0, 20}, tcp)
	var sum uint32
	for i := 0; i < len(pseudo); i += 2 {
		sum += uint32(be.Uint16(pseudo[i:]))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	be.PutUint16(tcp[16:], ^uint16(sum))
	ip := []byte{0x45, 0, 0, 40, 0, 1, 0, 0, 64, syscall.IPPROTO_TCP, 0, 0}
	return slices.Concat(ip, s[:], d[:], tcp)
}
