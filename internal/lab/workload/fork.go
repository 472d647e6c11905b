package main

import (
	"fmt"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A Go program cannot fork: only the calling thread lives on in the child, and
// the runtime would wait for the others. The children here never get into the
// runtime: they make system calls by number, from functions that need no stack
// of their own growing. In return one costs a hundredth of a program's start,
// which is what an emulated guest with hundreds of processes needs.

// child is what a forked child does; it must be nosplit throughout, allocate
// nothing and call nothing but sys.
type child func(a *assignment)

// assignment is all that a child knows. It is filled in before the fork.
type assignment struct {
	ready  uintptr // descriptor that a byte is written to when the child has its sockets
	to     [16]byte
	any    [16]byte // wildcard address, no port
	name   [16]byte
	udp    int // how many sockets of each kind
	listen int
	dial   int
	nap    unix.Timespec
	kind   int
}

//go:nosplit
func sys(number, a, b, c uintptr) (uintptr, syscall.Errno) {
	r, _, errno := syscall.RawSyscall(number, a, b, c)
	return r, errno
}

// fork makes a child of this process, which does what it is told and ends.
//
//go:norace
func fork(do child, a *assignment) (pid int, err error) {
	r, errno := sys(unix.SYS_FORK, 0, 0, 0)
	if errno != 0 {
		return 0, fmt.Errorf("cannot fork: %w", errno)
	}
	if r == 0 {
		do(a)
		for {
			_, _ = sys(unix.SYS_EXIT_GROUP, 0, 0, 0)
		}
	}
	return int(r), nil
}

// sockaddr writes a struct sockaddr_in.
func sockaddr(addr [4]byte, port uint16) (out [16]byte) {
	out[0] = unix.AF_INET
	out[2], out[3] = byte(port>>8), byte(port)
	copy(out[4:], addr[:])
	return out
}

// setPort writes the port of a struct sockaddr_in.
//
//go:nosplit
func setPort(a *[16]byte, port uint16) { a[2], a[3] = byte(port>>8), byte(port) }

//go:nosplit
func pointer(p *[16]byte) uintptr { return uintptr(unsafe.Pointer(p)) }

// reap waits for one child that has ended; block says whether to wait for it.
func reap(block bool) (pid int, err error) {
	options := unix.WNOHANG
	if block {
		options = 0
	}
	for {
		pid, err := unix.Wait4(-1, nil, options, nil)
		if err != unix.EINTR {
			return pid, err
		}
	}
}
