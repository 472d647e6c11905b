// Command agent runs inside the test guest and opens sockets of every shape
// that the owner look-up has to understand. Each argument is one thing to do,
// in order; after the last it prints "agent ready NAME" and holds all of it
// until it is killed.
//
//	listen:tcp4:0.0.0.0:80     a plain TCP (or MPTCP, as Go does) listener
//	plain:tcp4:0.0.0.0:80      the same with MPTCP off
//	udp:udp6:[::1]:53          a bound UDP socket
//	connect:tcp4:127.0.0.1:80  a TCP connection, accepted by whoever listens
//	udpconn:udp4:127.0.0.1:53  a connected UDP socket
//	raw:ip4:icmp               a raw socket
//	raw6:ip6:ipv6-icmp         the same of IPv6
//	ping:udp4                  an unprivileged ICMP socket
//	lazy:127.0.0.1:80          a TCP listener that accepts nobody
//	kind:136:1:127.0.0.1:80    a socket of protocol 136 and type 1, bound
//	uring:                     what lazy and kind opened so far is held by an io_uring alone
//	fly:                       the same is on its way over a unix socket of ours
//	give:/tmp/x                the same is sent to who connects there, and closed
//	take:/tmp/x                received from there, and held
//	packet:                    a packet socket
//	syn:192.0.2.9:7,10.0.0.1:8 a SYN from the first address to the second, by a raw socket
//	quit:tcp4:0.0.0.0:70       end, with status 7, when somebody connects there
//	fork:NAME                  a child that inherits every socket opened so far
//	sleep:NAME                 a child without any
//	patch:                     change a byte of its own text
//	netns:                     the next sockets are in a network namespace of their own
package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"os/signal"
	"reflect"
	"runtime"
	"strings"
	"syscall"
	"time"
	"unsafe"
)

// held keeps every socket referenced for the life of the process.
type held struct {
	files []*os.File
	any   []any
	fds   []int
}

func main() {
	signal.Ignore(syscall.SIGHUP)
	runtime.LockOSThread() // netns: is about the calling thread
	var h held
	for _, arg := range os.Args[2:] {
		if err := h.do(arg); err != nil {
			fmt.Printf("agent failed %s: %s: %v\n", os.Args[1], arg, err)
			os.Exit(1)
		}
	}
	fmt.Printf("agent ready %s\n", os.Args[1])
	wait := make(chan os.Signal, 1)
	signal.Notify(wait, syscall.SIGTERM)
	<-wait
	runtime.KeepAlive(h)
}

func (h *held) do(arg string) error {
	verb, rest, _ := strings.Cut(arg, ":")
	network, addr, _ := strings.Cut(rest, ":")
	switch verb {
	case "listen", "plain":
		return h.listen(verb == "listen", network, addr)
	case "quit":
		l, err := net.Listen(network, addr)
		if err != nil {
			return err
		}
		go func() {
			_, _ = l.Accept()
			os.Exit(7)
		}()
		return nil
	case "udp":
		c, err := net.ListenPacket(network, addr)
		return h.hold(c, err)
	case "connect", "udpconn":
		d := net.Dialer{}
		d.SetMultipathTCP(false)
		c, err := d.Dial(network, addr)
		return h.hold(c, err)
	case "patch":
		return patch()
	case "raw":
		c, err := net.ListenPacket(rest, "0.0.0.0")
		return h.hold(c, err)
	case "raw6":
		c, err := net.ListenPacket(rest, "::")
		return h.hold(c, err)
	case "ping":
		return h.ping()
	case "lazy":
		return h.lazy(rest)
	case "kind":
		var proto, typ int
		if _, err := fmt.Sscanf(rest, "%d:%d:%s", &proto, &typ, &addr); err != nil {
			return err
		}
		_, err := h.bound(proto, typ, addr)
		return err
	case "uring":
		return h.giveUp(h.register)
	case "give":
		return h.giveUp(func() error { return h.pass(rest) })
	case "take":
		return h.take(rest)
	case "fly":
		return h.giveUp(h.send)
	case "packet":
		fd, err := syscall.Socket(syscall.AF_PACKET, syscall.SOCK_RAW, 0)
		h.files = append(h.files, os.NewFile(uintptr(fd), "packet"))
		return err
	case "syn":
		return syn(rest)
	case "fork":
		return h.child(rest, h.files)
	case "sleep":
		return h.child(rest, nil)
	case "netns":
		if err := syscall.Unshare(syscall.CLONE_NEWNET); err != nil {
			return err
		}
		return exec.Command("/bin/busybox", "ip", "link", "set", "lo", "up").Run()
	}
	return fmt.Errorf("unknown verb")
}

func (h *held) listen(multipath bool, network, addr string) error {
	lc := net.ListenConfig{}
	lc.SetMultipathTCP(multipath)
	l, err := lc.Listen(context.Background(), network, addr)
	if err != nil {
		return err
	}
	go func() { // accepted connections stay open and are this process's
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			h.any = append(h.any, c)
		}
	}()
	return h.hold(l, nil)
}

func (h *held) hold(c any, err error) error {
	if err != nil {
		return err
	}
	h.any = append(h.any, c)
	if f, ok := c.(interface{ File() (*os.File, error) }); ok {
		dup, err := f.File()
		if err != nil {
			return err
		}
		h.files = append(h.files, dup)
	}
	return nil
}

func (h *held) ping() error {
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_DGRAM, syscall.IPPROTO_ICMP)
	if err != nil {
		return err
	}
	h.files = append(h.files, os.NewFile(uintptr(fd), "ping"))
	return syscall.Bind(fd, &syscall.SockaddrInet4{Port: 4242})
}

// lazy listens without accepting.
func (h *held) lazy(addr string) error {
	fd, err := h.bound(syscall.IPPROTO_TCP, syscall.SOCK_STREAM, addr)
	if err != nil {
		return err
	}
	return syscall.Listen(fd, 8)
}

// bound opens a socket that Go's runtime knows nothing of.
func (h *held) bound(proto, typ int, addr string) (int, error) {
	to, err := netip.ParseAddrPort(addr)
	if err != nil {
		return 0, err
	}
	fd, err := syscall.Socket(syscall.AF_INET, typ, proto)
	if err != nil {
		return 0, err
	}
	h.fds = append(h.fds, fd)
	return fd, syscall.Bind(fd, &syscall.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().As4()})
}

// giveUp closes the descriptors of the sockets after somebody else holds them.
func (h *held) giveUp(give func() error) error {
	err := give()
	for _, fd := range h.fds {
		syscall.Close(fd)
	}
	h.fds = nil
	return err
}

// register gives the sockets to an io_uring (io_uring_setup and _register).
func (h *held) register() error {
	const setup, register, registerFiles = 425, 427, 2
	var params [120]byte
	ring, _, errno := syscall.Syscall(setup, 4, uintptr(unsafe.Pointer(&params)), 0)
	if errno != 0 {
		return errno
	}
	fds := make([]int32, 0, len(h.fds)+1)
	fds = append(fds, -1) // an empty slot
	for _, fd := range h.fds {
		fds = append(fds, int32(fd))
	}
	_, _, errno = syscall.Syscall6(register, ring, registerFiles, uintptr(unsafe.Pointer(&fds[0])), uintptr(len(fds)), 0, 0)
	if errno != 0 {
		return errno
	}
	return nil
}

// pass sends the sockets to another process, and waits until it has them.
func (h *held) pass(path string) error {
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path})
	if err != nil {
		return err
	}
	defer l.Close()
	c, err := l.AcceptUnix()
	if err != nil {
		return err
	}
	defer c.Close()
	if _, _, err := c.WriteMsgUnix([]byte{1}, syscall.UnixRights(h.fds...), nil); err != nil {
		return err
	}
	_, err = c.Read(make([]byte, 1))
	return err
}

func (h *held) take(path string) error {
	c, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: path})
	for ; errors.Is(err, syscall.ENOENT) || errors.Is(err, syscall.ECONNREFUSED); time.Sleep(10 * time.Millisecond) {
		c, err = net.DialUnix("unix", nil, &net.UnixAddr{Name: path})
	}
	if err != nil {
		return err
	}
	defer c.Close()
	oob := make([]byte, 256)
	_, n, _, _, err := c.ReadMsgUnix(make([]byte, 1), oob)
	if err != nil {
		return err
	}
	messages, err := syscall.ParseSocketControlMessage(oob[:n])
	if err != nil {
		return err
	}
	for _, m := range messages {
		fds, err := syscall.ParseUnixRights(&m)
		if err != nil {
			return err
		}
		h.fds = append(h.fds, fds...)
	}
	_, err = c.Write([]byte{1})
	return err
}

// send sends the sockets to ourselves, who do not receive them.
func (h *held) send() error {
	pair, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	if err != nil {
		return err
	}
	return syscall.Sendmsg(pair[0], []byte{1}, syscall.UnixRights(h.fds...), nil, 0)
}

func (h *held) child(name string, files []*os.File) error {
	cmd := exec.Command("/bin/agent", name)
	cmd.ExtraFiles = files
	cmd.Stdout = os.Stdout
	return cmd.Start()
}

// spare is text that nobody runs.
//
//go:noinline
func spare() { panic("spare") }

// patch writes to the page of spare, of which the kernel makes a copy for us.
func patch() error {
	at := reflect.ValueOf(spare).Pointer()
	page := unsafe.Slice((*byte)(unsafe.Pointer(at&^4095)), 4096)
	if err := syscall.Mprotect(page, syscall.PROT_READ|syscall.PROT_WRITE|syscall.PROT_EXEC); err != nil {
		return err
	}
	page[at&4095] ^= 0xff
	return nil
}
