package main

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// churn forks children as fast as it can, each of which sends one packet that
// says its pid, lives for a while and ends. By UDP the pid is the payload, in
// the byte order of the machine; by TCP it is the port that the child connects
// to, without waiting for an answer. When all have ended it prints a line with
// their number and how long it took.
func churn(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("churn", flag.ContinueOnError)
	count := flags.Int("n", 1000, "children")
	parallel := flags.Int("parallel", 8, "children at once, at most")
	kind := flags.String("kind", "both", "udp, tcp or both")
	life := flags.Duration("life", 0, "children live up to this long after they have sent, evenly spread; 0: they end at once")
	every := flags.Duration("every", 0, "from one child to the next, at least")
	target, err := parse(flags, args, 1)
	if err != nil {
		return err
	}
	to, err := netip.ParseAddrPort(target[0])
	if err != nil || !to.Addr().Is4() {
		return fmt.Errorf("%w: %q is no IPv4 address with a port", errUsage, target[0])
	}
	kinds := map[string][]int{"udp": {unix.SOCK_DGRAM}, "tcp": {unix.SOCK_STREAM}, "both": {unix.SOCK_DGRAM, unix.SOCK_STREAM}}[*kind]
	if kinds == nil {
		return fmt.Errorf("%w: kind %q", errUsage, *kind)
	}
	a := &assignment{to: sockaddr(to.Addr().As4(), to.Port())}
	copy(a.name[:], "brief")
	begin, alive := time.Now(), 0
	for i := range *count {
		for alive >= *parallel {
			if _, err := reap(true); err != nil {
				return err
			}
			alive--
		}
		a.kind = kinds[i%len(kinds)]
		if *life > 0 {
			a.nap = unix.NsecToTimespec(rand.Int64N(life.Nanoseconds()))
		}
		if _, err := fork(brief, a); err != nil {
			return err
		}
		alive++
		if !pause(ctx, *every) {
			break
		}
	}
	for ; alive > 0; alive-- {
		if _, err := reap(true); err != nil {
			return err
		}
	}
	print(map[string]any{"pid": os.Getpid(), "children": *count, "ms": since(begin)})
	return ctx.Err()
}

// brief sends one packet that says its pid, and ends after its nap.
//
//go:nosplit
//go:norace
func brief(a *assignment) {
	_, _ = sys(unix.SYS_PRCTL, unix.PR_SET_NAME, pointer(&a.name), 0)
	pid, _ := sys(unix.SYS_GETPID, 0, 0, 0)
	fd, _ := sys(unix.SYS_SOCKET, unix.AF_INET, uintptr(a.kind|unix.SOCK_NONBLOCK), 0)
	if a.kind == unix.SOCK_STREAM {
		setPort(&a.to, uint16(pid))
		_, _ = sys(unix.SYS_CONNECT, fd, pointer(&a.to), 16)
	} else {
		_, _ = sys(unix.SYS_CONNECT, fd, pointer(&a.to), 16)
		_, _ = sys(unix.SYS_WRITE, fd, uintptr(unsafe.Pointer(&pid)), 8)
	}
	if a.nap.Sec != 0 || a.nap.Nsec != 0 {
		_, _ = sys(unix.SYS_NANOSLEEP, uintptr(unsafe.Pointer(&a.nap)), 0, 0)
	}
}
