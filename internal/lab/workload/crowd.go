package main

import (
	"context"
	"flag"
	"fmt"
	"net"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// crowd makes many processes with many sockets that do nothing: a guest as large
// as a busy server. Each child has bound UDP sockets, listeners and connections
// to the parent, which holds their other ends. It prints a line when all are
// there: how many, and the pid and a UDP port of the last child.
func crowd(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("crowd", flag.ContinueOnError)
	processes := flags.Int("processes", 450, "children")
	udp := flags.Int("udp", 6, "bound UDP sockets of each")
	listen := flags.Int("listen", 4, "TCP listeners of each")
	dial := flags.Int("dial", 4, "TCP connections of each")
	if _, err := parse(flags, args, 0); err != nil {
		return err
	}
	limit := unix.Rlimit{Cur: 1 << 20, Max: 1 << 20}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return fmt.Errorf("cannot raise the limit of descriptors: %w", err)
	}
	config := net.ListenConfig{}
	config.SetMultipathTCP(false)
	listener, err := config.Listen(ctx, "tcp4", "127.0.0.1:0")
	if err != nil {
		return err
	}
	defer listener.Close()
	read, write, err := os.Pipe()
	if err != nil {
		return err
	}
	defer read.Close()
	defer write.Close()
	a := &assignment{
		ready: write.Fd(), udp: *udp, listen: *listen, dial: *dial,
		to: sockaddr([4]byte{127, 0, 0, 1}, uint16(listener.Addr().(*net.TCPAddr).Port)), any: sockaddr([4]byte{}, 0),
	}
	copy(a.name[:], "member")
	// Connections are accepted only when all children are there, who would
	// inherit them.
	last := 0
	for range *processes {
		if last, err = fork(member, a); err != nil {
			return err
		}
		defer unix.Kill(last, unix.SIGKILL)
		var outcome [1]byte
		if _, err := read.Read(outcome[:]); err != nil {
			return err
		}
		if outcome[0] != 0 {
			return fmt.Errorf("a child got no socket: %w", unix.Errno(outcome[0]))
		}
	}
	for range *processes * *dial {
		conn, err := listener.Accept()
		if err != nil {
			return err
		}
		defer conn.Close()
	}
	sockets := 1 + *processes*(*udp+*listen+2**dial)
	print(map[string]any{"pid": os.Getpid(), "processes": *processes + 1, "sockets": sockets, "last": last})
	<-ctx.Done()
	return ctx.Err()
}

// member opens its sockets, says so and waits to be killed.
//
//go:nosplit
//go:norace
func member(a *assignment) {
	_, _ = sys(unix.SYS_CLOSE_RANGE, 3, a.ready-1, 0)
	_, _ = sys(unix.SYS_CLOSE_RANGE, a.ready+1, 1<<20, 0)
	_, _ = sys(unix.SYS_PRCTL, unix.PR_SET_NAME, pointer(&a.name), 0)
	var failed [16]byte
	for range a.udp {
		failed[0] |= member1(a, unix.SOCK_DGRAM, unix.SYS_BIND, &a.any)
	}
	for range a.listen {
		failed[0] |= member1(a, unix.SOCK_STREAM, unix.SYS_BIND, &a.any)
	}
	for range a.dial {
		failed[0] |= member1(a, unix.SOCK_STREAM, unix.SYS_CONNECT, &a.to)
	}
	_, _ = sys(unix.SYS_WRITE, a.ready, uintptr(unsafe.Pointer(&failed)), 1)
	for {
		_, _ = sys(unix.SYS_PAUSE, 0, 0, 0)
	}
}

// member1 opens one socket, to stay open; listeners are those that are bound.
//
//go:nosplit
//go:norace
func member1(a *assignment, kind, call uintptr, addr *[16]byte) byte {
	fd, errno := sys(unix.SYS_SOCKET, unix.AF_INET, kind, 0)
	if errno != 0 {
		return byte(errno)
	}
	if _, errno = sys(call, fd, pointer(addr), 16); errno != 0 {
		return byte(errno)
	}
	if kind == unix.SOCK_STREAM && call == unix.SYS_BIND {
		_, errno = sys(unix.SYS_LISTEN, fd, 8, 0)
	}
	return byte(errno)
}
