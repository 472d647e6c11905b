package snort

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// wire is the pair as it stands in a gateway: the far ends i0 and i1 in one
// namespace, the engine's ends i0p and i1p in another. Both go with the test's
// file descriptors.
type wire struct {
	engineNS string
	i0, i1   *port
}

// port is a raw socket on a far end.
type port struct {
	t     testing.TB
	fd    int
	index int
}

func newWire(t testing.TB) *wire {
	t.Helper()
	return newWireMTU(t, 1500)
}

func newWireMTU(t testing.TB, mtu int) *wire {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("skipped: needs root, to make network namespaces")
	}
	far, engine := newNS(t), newNS(t)
	w := &wire{engineNS: fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), int(engine))}
	inFar, err := netlink.NewHandleAt(far)
	must(t, err)
	defer inFar.Close()
	inEngine, err := netlink.NewHandleAt(engine)
	must(t, err)
	defer inEngine.Close()
	for _, name := range []string{"i0", "i1"} {
		must(t, inFar.LinkAdd(&netlink.Veth{
			LinkAttrs: netlink.LinkAttrs{Name: name, MTU: mtu}, PeerName: name + "p", PeerMTU: uint32(mtu), PeerNamespace: netlink.NsFd(engine),
		}))
		for h, n := range map[*netlink.Handle]string{inFar: name, inEngine: name + "p"} {
			link, err := h.LinkByName(n)
			must(t, err)
			must(t, h.LinkSetUp(link))
		}
	}
	w.i0, w.i1 = openPort(t, far, "i0"), openPort(t, far, "i1")
	return w
}

// newNS makes a namespace without IPv6, so that nothing speaks by itself.
func newNS(t testing.TB) (ns netns.NsHandle) {
	t.Helper()
	must(t, onThread(func() (err error) {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return err
		}
		if err := os.WriteFile("/proc/sys/net/ipv6/conf/default/disable_ipv6", []byte("1"), 0); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
		ns, err = netns.Get()
		return err
	}))
	t.Cleanup(func() { ns.Close() })
	return ns
}

func openPort(t testing.TB, ns netns.NsHandle, name string) *port {
	t.Helper()
	p := &port{t: t}
	must(t, onThread(func() error {
		if err := netns.Set(ns); err != nil {
			return err
		}
		dev, err := net.InterfaceByName(name)
		if err != nil {
			return err
		}
		p.index = dev.Index
		all := htons(unix.ETH_P_ALL)
		p.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, int(all))
		if err != nil {
			return err
		}
		return errors.Join(
			unix.SetsockoptInt(p.fd, unix.SOL_PACKET, unix.PACKET_AUXDATA, 1),
			unix.SetsockoptInt(p.fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1),
			unix.Bind(p.fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: p.index}),
		)
	}))
	t.Cleanup(func() { unix.Close(p.fd) })
	return p
}

func htons(v uint16) uint16 { return binary.BigEndian.Uint16(binary.NativeEndian.AppendUint16(nil, v)) }

func (p *port) send(frame []byte) {
	p.t.Helper()
	_, err := unix.Write(p.fd, frame)
	must(p.t, err)
}

// arrives says whether the very frame comes out here before the limit.
func (p *port) arrives(frame []byte, limit time.Duration) bool {
	p.t.Helper()
	for deadline := time.Now().Add(limit); ; {
		got, ok := p.next(time.Until(deadline))
		if !ok {
			return false
		}
		if bytes.Equal(got, frame) {
			return true
		}
	}
}

// next gives the next frame that comes out before the limit.
func (p *port) next(limit time.Duration) (frame []byte, ok bool) {
	p.t.Helper()
	for deadline := time.Now().Add(limit); ; {
		left := time.Until(deadline)
		if left <= 0 {
			return nil, false
		}
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(p.fd), Events: unix.POLLIN}}, int(left.Milliseconds())+1)
		if errors.Is(err, unix.EINTR) || n == 0 {
			continue
		}
		must(p.t, err)
		return p.receive(), true
	}
}

// receive gives the next frame, with the VLAN tag put back that the kernel
// takes out and tells beside it.
func (p *port) receive() []byte {
	p.t.Helper()
	buf, oob := make([]byte, 1<<16), make([]byte, 256)
	n, oobn, _, _, err := unix.Recvmsg(p.fd, buf, oob, 0)
	must(p.t, err)
	frame := buf[:n]
	messages, err := unix.ParseSocketControlMessage(oob[:oobn])
	must(p.t, err)
	for _, m := range messages { // struct tpacket_auxdata
		if m.Header.Type != unix.PACKET_AUXDATA || binary.NativeEndian.Uint32(m.Data)&unix.TP_STATUS_VLAN_VALID == 0 {
			continue
		}
		tag := binary.BigEndian.AppendUint16(nil, binary.NativeEndian.Uint16(m.Data[18:]))
		tag = binary.BigEndian.AppendUint16(tag, binary.NativeEndian.Uint16(m.Data[16:]))
		frame = append(append(append([]byte{}, frame[:12]...), tag...), frame[12:]...)
	}
	return frame
}

// running is an engine under Run, with what it told.
type running struct {
	*Engine            // of run
	external *External // of runExternal
	t        testing.TB
	states   chan State
	alerts   chan Alert
	stop     func() error // returns what Run did; may be called twice
}

func run(t testing.TB, c Config) *running {
	t.Helper()
	e, err := New(c)
	must(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	r := &running{Engine: e, t: t, states: make(chan State, 1000), alerts: make(chan Alert, 100000)}
	ended := make(chan error, 1)
	go func() {
		ended <- e.Run(ctx, func(s State) { r.states <- s }, func(a Alert) { r.alerts <- a })
	}()
	r.stop = sync.OnceValue(func() error { cancel(); return <-ended })
	t.Cleanup(func() { r.stop() })
	return r
}

// await gives the next state of that phase.
func (r *running) await(phase string) State {
	r.t.Helper()
	limit := time.After(30 * time.Second)
	for {
		select {
		case s := <-r.states:
			if s.Phase == phase {
				return s
			}
		case <-limit:
			r.t.Fatalf("no phase %q; now %+v", phase, r.State())
		}
	}
}

func (r *running) alert(limit time.Duration) (Alert, bool) {
	select {
	case a := <-r.alerts:
		return a, true
	case <-time.After(limit):
		return Alert{}, false
	}
}

// runDir is a directory of the length that a test's own name would exceed: a
// socket path has 107 bytes.
func runDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "vmgate-ids-")
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	must(t, os.Chmod(dir, 0o711)) // the engine's user goes through it
	return filepath.Join(dir, "run")
}

func ruleFile(t testing.TB, rules string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "local.rules")
	must(t, os.WriteFile(path, []byte(rules), 0o600))
	return path
}

func testLog(t testing.TB) *slog.Logger {
	return slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug}))
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
