package loader

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/safchain/ethtool"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

var serial atomic.Uint32

// gatewayNS moves the test into a network namespace of its own. The test's
// thread ends with it.
func gatewayNS(t *testing.T) {
	t.Helper()
	runtime.LockOSThread() // and never unlocked
	ns, err := netns.New()
	if err != nil {
		t.Skipf("no network namespaces: %v", err)
	}
	t.Cleanup(func() { _ = ns.Close() })
	must(t, linkUp(byName(t, "lo")))
}

// pinsDir returns a pin directory of the test's own, which Remove clears at the end.
func pinsDir(t *testing.T) string {
	t.Helper()
	if !onBPFFS("/sys/fs/bpf") {
		t.Skip("no BPF file system at /sys/fs/bpf")
	}
	pins := fmt.Sprintf("/sys/fs/bpf/vmgate-test-%d-%d", os.Getpid(), serial.Add(1))
	t.Cleanup(func() {
		if err := Remove(pins); err != nil {
			t.Errorf("cleaning up: %v", err)
		}
	})
	return pins
}

// station is a VM's end of a wire: a namespace with one veth end, the other end
// of which is a vNIC of the gateway.
type station struct {
	t    *testing.T
	dev  string // its device in ns
	ns   netns.NsHandle
	mac  MAC
	sock int // AF_PACKET
}

// newStation makes the wire and the station. The gateway's end is named vnic.
func newStation(t *testing.T, vnic string) *station {
	t.Helper()
	home, err := netns.Get()
	must(t, err)
	defer home.Close()
	ns, err := netns.New() // enters it, too
	must(t, err)
	must(t, netns.Set(home))
	s := &station{t: t, dev: "vm", ns: ns, sock: -1}
	t.Cleanup(s.close)
	s.plug(vnic)
	return s
}

// plug makes the veth pair, again after unplug.
func (s *station) plug(vnic string) {
	s.t.Helper()
	attrs := netlink.NewLinkAttrs()
	attrs.Name = vnic
	veth := netlink.NewVeth(attrs)
	veth.PeerName, veth.PeerNamespace = "vm", netlink.NsFd(s.ns)
	must(s.t, netlink.LinkAdd(veth))
	must(s.t, inNetNS(s.ns, func() error {
		dev, err := netlink.LinkByName("vm")
		if err != nil {
			return err
		}
		s.mac = MAC(dev.Attrs().HardwareAddr)
		if err := errors.Join(noIPv6(dev), linkUp(dev)); err != nil {
			return err
		}
		e, err := ethtool.NewEthtool()
		if err != nil {
			return err
		}
		defer e.Close()
		// A veth takes redirected frames only with NAPI on.
		if err := e.Change("vm", map[string]bool{"rx-gro": true}); err != nil {
			return err
		}
		if s.sock >= 0 {
			_ = unix.Close(s.sock)
		}
		return s.listen(dev.Attrs().Index)
	}))
}

// listen opens the station's socket on a device of the calling thread's namespace.
func (s *station) listen(index int) (err error) {
	s.sock, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, int(hton16(unix.ETH_P_ALL)))
	if err != nil {
		return err
	}
	return unix.Bind(s.sock, &unix.SockaddrLinklayer{Protocol: hton16(unix.ETH_P_ALL), Ifindex: index})
}

func (s *station) close() {
	if s.sock >= 0 {
		_ = unix.Close(s.sock)
	}
	_ = s.ns.Close()
}

// ready waits until the station's device can send: the kernel brings it up some
// time after the gateway's end.
func (s *station) ready() {
	s.t.Helper()
	must(s.t, inNetNS(s.ns, func() error {
		for deadline := time.Now().Add(5 * time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
			dev, err := netlink.LinkByName(s.dev)
			if err != nil || dev.Attrs().OperState == netlink.OperUp {
				return err
			}
		}
		return errors.New("the device did not come up")
	}))
}

func (s *station) send(frame []byte) {
	s.t.Helper()
	if _, err := unix.Write(s.sock, frame); err != nil {
		s.t.Fatalf("sending: %v", err)
	}
}

// receive waits for a frame that comes in and equals want.
func (s *station) receive(want []byte) {
	s.t.Helper()
	deadline := time.Now().Add(5 * time.Second)
	for time.Now().Before(deadline) {
		if frame := s.next(deadline); bytes.Equal(frame, want) {
			return
		}
	}
	s.t.Fatalf("frame did not arrive")
}

// receiveNothingUntil fails if unwanted arrives before until.
func (s *station) receiveNothingUntil(unwanted, until []byte) {
	s.t.Helper()
	deadline := time.Now().Add(5 * time.Second)
	for time.Now().Before(deadline) {
		switch frame := s.next(deadline); {
		case bytes.Equal(frame, unwanted):
			s.t.Fatal("a frame arrived that should not")
		case bytes.Equal(frame, until):
			return
		}
	}
	s.t.Fatal("frame did not arrive")
}

// next returns the next frame that came in, nil after the deadline.
func (s *station) next(deadline time.Time) []byte {
	s.t.Helper()
	buf := make([]byte, 65536)
	for time.Now().Before(deadline) {
		p := []unix.PollFd{{Fd: int32(s.sock), Events: unix.POLLIN}}
		if n, err := unix.Poll(p, 100); n == 0 || errors.Is(err, unix.EINTR) {
			continue
		}
		n, from, err := unix.Recvfrom(s.sock, buf, 0)
		if err != nil {
			s.t.Fatalf("receiving: %v", err)
		}
		if from.(*unix.SockaddrLinklayer).Pkttype != unix.PACKET_OUTGOING {
			return buf[:n]
		}
	}
	return nil
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func byName(t *testing.T, name string) netlink.Link {
	t.Helper()
	l, err := netlink.LinkByName(name)
	must(t, err)
	return l
}

func exists(name string) bool {
	_, err := net.InterfaceByName(name)
	return err == nil
}
