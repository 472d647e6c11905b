package e2e_test

import (
	"bytes"
	"fmt"
	"net"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/vmgate/vmgate/internal/lab"
)

// engineSocket is a packet socket on one of the engine's devices.
func (g *gateway) engineSocket(t *testing.T, device string) int {
	t.Helper()
	// The thread is brought back, not ended: what it has forked would be killed with it.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	home, err := netns.Get()
	must(t, err)
	defer home.Close()
	engine, err := netns.GetFromPath(filepath.Join("/run/netns", filepath.Base(g.Pins)+"-ids"))
	must(t, err)
	defer engine.Close()
	must(t, netns.Set(engine))
	fd, err := openPacketSocket(device, unix.ETH_P_ALL)
	if back := netns.Set(home); back != nil {
		panic(back) // everything after would go astray
	}
	must(t, err)
	return fd
}

// stray is a frame that is for everybody or for nobody.
func stray(t *testing.T, from net.HardwareAddr, src net.IP, to net.HardwareAddr, dst net.IP, mark string) []byte {
	t.Helper()
	ip := &layers.IPv4{Version: 4, TTL: 1, Protocol: layers.IPProtocolUDP, SrcIP: src, DstIP: dst}
	udp := &layers.UDP{SrcPort: 5353, DstPort: 5353}
	must(t, udp.SetNetworkLayerForChecksum(ip))
	return serialize(t, &layers.Ethernet{SrcMAC: from, DstMAC: to, EthernetType: layers.EthernetTypeIPv4}, ip, udp,
		gopacket.Payload(fmt.Sprintf("%-64s", mark)))
}

// strays are the ways a frame can go astray, by its destination.
var strays = []struct {
	name string
	mac  net.HardwareAddr
	ip   net.IP
}{
	{"broadcast", broadcast, net.IPv4bcast},
	{"multicast", net.HardwareAddr{1, 0, 0x5e, 0, 0, 0xfb}, net.IPv4(224, 0, 0, 251)},
	{"unicast to nobody", net.HardwareAddr{2, 0x66, 0, 0, 0, 9}, net.IPv4(10, 77, 0, 99)},
}

// TestDetour_NothingLoops is Algorithm 1 of the paper: what is for everybody or for
// nobody never goes from one IDS port to the other, nor anywhere twice; questions that
// have an answer arrive once.
func TestDetour_NothingLoops(t *testing.T) {
	const each = 200
	g := namespaced(t, setup{IDS: harmlessRule})
	g.measure(t, "inspect", "app1") // so that all of its frames go to the engine that may
	ends := map[string]int{"ids-in-p": g.engineSocket(t, "ids-in-p"), "ids-out-p": g.engineSocket(t, "ids-out-p")}
	wires := map[string]*capture{"apps": g.appsWire, "web": g.webWire}
	for name, fd := range ends {
		// As if the engine sent: it does not see what goes out past the taps.
		must(t, unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_QDISC_BYPASS, 1))
		wires[name] = captureOn(t, g.engineSocket(t, name))
		defer unix.Close(ends[name])
	}
	wantNowhere := func(mark string) {
		t.Helper()
		for name, wire := range wires {
			if n := len(wire.seen(carries(mark))); n > 0 {
				t.Errorf("%s: %d came to %s", mark, n, name)
			}
		}
	}
	for _, host := range []*lab.Host{g.App1, g.App2, g.Web1} {
		fd := packetSocket(t, host.Namespace, host.Interface, 0)
		for _, s := range strays {
			mark := fmt.Sprintf("<stray %s of %s>", s.name, host.Name)
			frame := stray(t, host.MAC, host.V4.Addr().AsSlice(), s.mac, s.ip, mark)
			for range each {
				_, err := unix.Write(fd, frame)
				must(t, err)
			}
			g.fenceAcross(t, host)
			wantNowhere(mark)
		}
		unix.Close(fd)
	}
	for _, ask := range []struct {
		from, of *lab.Host
		wire     *capture
	}{{g.App1, g.Web1, g.webWire}, {g.App2, g.Web1, g.webWire}, {g.Web1, g.App2, g.appsWire}, {g.Web1, g.App1, g.appsWire}} {
		to, from := ask.of.V4.Addr().AsSlice(), ask.from.V4.Addr().AsSlice()
		isQuestion := func(f []byte) bool {
			return f[12] == 8 && f[13] == 6 && f[21] == 1 && bytes.Equal(f[28:32], from) && bytes.Equal(f[38:42], to)
		}
		before := len(ask.wire.seen(isQuestion))
		frame := arp(t, ask.from.MAC, from, to, broadcast)
		for range each {
			sendRaw(t, ask.from, frame)
		}
		await(t, "the questions arrive", func() bool { return len(ask.wire.seen(isQuestion)) >= before+each })
		g.fenceAcross(t, ask.from)
		if n := len(ask.wire.seen(isQuestion)) - before; n > each {
			t.Errorf("%d of %d questions of %s for %s arrived", n, each, ask.from.Name, ask.of.Name)
		}
		for _, name := range []string{"ids-in-p", "ids-out-p"} {
			if n := len(wires[name].seen(func(f []byte) bool { return isQuestion(f) && bytes.Equal(f[:6], broadcast) })); n > 0 {
				t.Errorf("%d broadcast questions of %s came to %s", n, ask.from.Name, name)
			}
		}
	}
	g.floodFromEngine(t, ends, wires, each)
}

// fenceAcross waits until what a host sent before has gone through the gateway: what
// it sends later has come out. On a busy machine an engine may lose a packet.
func (g *gateway) fenceAcross(t *testing.T, from *lab.Host) {
	t.Helper()
	arrives := func(wire *capture, p probe) {
		t.Helper()
		await(t, "what is sent later: "+p.String(), func() bool {
			p.send(t)
			return len(wire.seen(carries(p.payload))) > 0
		})
	}
	if from != g.Web1 {
		arrives(g.webWire, newProbe(from, g.Web1, 80))
		return
	}
	p := newProbe(g.App2, g.Web1, 80) // which may not begin a flow to that side
	arrives(g.webWire, p)
	arrives(g.appsWire, p.answer())
}

// floodFromEngine sends frames out of the engine, as one that has gone mad would.
func (g *gateway) floodFromEngine(t *testing.T, ends map[string]int, wires map[string]*capture, each int) {
	t.Helper()
	stranger := net.HardwareAddr{2, 0x66, 0, 0, 0, 8}
	for end, fd := range ends {
		port := end[:len(end)-2]
		send := func(frame []byte, n int, reason string) {
			t.Helper()
			before := g.counts()
			for range n {
				_, err := unix.Write(fd, frame)
				must(t, err)
			}
			g.awaitCount(t, before, port+"/"+reason, uint64(n))
		}
		for _, s := range strays {
			mark := fmt.Sprintf("<stray %s out of %s>", s.name, end)
			reason := "drop-ids-loop"
			if s.name == "unicast to nobody" {
				reason = "drop-unknown-dest"
			}
			send(stray(t, g.App1.MAC, g.App1.V4.Addr().AsSlice(), s.mac, s.ip, mark), each, reason)
			send(stray(t, stranger, g.App1.V4.Addr().AsSlice(), g.Web1.MAC, g.Web1.V4.Addr().AsSlice(), mark), each, "drop-unknown-source")
			for name, wire := range wires {
				if n := len(wire.seen(carries(mark))); n > 0 {
					t.Errorf("%s: %d came to %s", mark, n, name)
				}
			}
		}
		mark := "<inspected, out of " + end + ">"
		send(stray(t, g.App2.MAC, g.App2.V4.Addr().AsSlice(), g.Web1.MAC, g.Web1.V4.Addr().AsSlice(), mark), each, "ids-return")
		await(t, "what has been inspected arrives", func() bool { return len(g.webWire.seen(carries(mark))) >= each })
		for name, wire := range wires {
			want := 0
			if name == "web" {
				want = each
			}
			if n := len(wire.seen(carries(mark))); n != want {
				t.Errorf("%s: %d came to %s, want %d", mark, n, name, want)
			}
		}
	}
}
