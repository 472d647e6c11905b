package loader

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/safchain/ethtool"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// by returns the test's ports with these data paths.
func by(paths ...Datapath) []Port {
	ports := slices.Clone(testPorts)
	for i := range ports {
		ports[i].Datapath = paths[i]
	}
	return ports
}

func TestDatapath_EachPairPassesADecidedFlowBothWays(t *testing.T) {
	g := newGateway(t)
	n := 1
	for _, clsact := range []bool{false, true} {
		if clsact {
			_, err := g.d.SetPorts(nil)
			must(t, err)
		} else if g.d.useClsact {
			continue
		}
		g.d.useClsact = clsact
		for _, a := range []Datapath{DatapathXDP, DatapathTCX, DatapathXDPGeneric} {
			for _, b := range []Datapath{DatapathXDP, DatapathTCX, DatapathXDPGeneric} {
				t.Logf("%s to %s, clsact %v", a, b, clsact)
				for i, st := range g.attach(by(a, b)) {
					if want := []Datapath{a, b}[i]; st.Datapath != want || st.Fallback != nil {
						t.Errorf("port %d: %s (%v), want %s", st.ID, st.Datapath, st.Fallback, want)
					}
				}
				n++
				g.passes(n)
				must(t, g.d.SetOwner(7, Owner{Verdict: drop, VM: 1, PID: 42}))
				before := g.count(1, "drop-verdict")
				g.vm[0].send(g.frame(n, false))
				g.waitCount(1, "drop-verdict", before+1)
				must(t, g.d.SetOwner(7, Owner{Verdict: forward, VM: 1, PID: 42}))
			}
		}
	}
}

func TestDatapath_ChangesUnderTrafficAndLosesNothing(t *testing.T) {
	g := newGateway(t)
	if g.d.useClsact {
		t.Skip("the kernel has no TCX links")
	}
	g.underTraffic(func() {
		for _, path := range []Datapath{DatapathTCX, DatapathXDP, DatapathTCX, DatapathXDP} {
			for _, st := range g.attach(by(path, path)) {
				if st.Datapath != path {
					t.Errorf("%s is on %s", st.Device, st.Datapath)
				}
			}
		}
	})
}

func TestDatapath_AutoFallsBackWhereXDPCannotBe(t *testing.T) {
	g := bare(t)
	for _, dev := range []string{"vnic.0", "vnic-1"} {
		ns := g.vm[map[string]int{"vnic.0": 0, "vnic-1": 1}[dev]].ns
		must(t, inNetNS(ns, func() error {
			vm, err := netlink.LinkByName("vm")
			return errors.Join(err, netlink.LinkSetMTU(vm, 9000))
		}))
		must(t, netlink.LinkSetMTU(byName(t, dev), 9000))
	}
	before := offloadsOf(t, "vnic.0")
	for _, st := range g.attach(by(DatapathAuto, DatapathAuto)) {
		if st.Datapath != DatapathTCX || st.Fallback == nil || !strings.Contains(st.Fallback.Error(), "too large for XDP") {
			t.Errorf("%s: %s because of %v", st.Device, st.Datapath, st.Fallback)
		}
	}
	if after := offloadsOf(t, "vnic.0"); !slices.Equal(before, after) {
		t.Errorf("offloads before %v, after %v", before, after)
	}
	g.passes(1)
}

func offloadsOf(t *testing.T, device string) []string {
	t.Helper()
	e, err := ethtool.NewEthtool()
	must(t, err)
	defer e.Close()
	on, err := activeOffloads(e, device, slices.Concat(rxMerging, rxVLAN, txVLAN))
	must(t, err)
	return on
}

func TestDatapath_XDPIsNotForTagsThatItCannotSee(t *testing.T) {
	g := newGateway(t) // the stations' ends are in namespaces of their own
	ports := by(DatapathAuto, DatapathXDP)
	ports[0].Tagged, ports[1].Tagged = true, true
	states, err := g.d.SetPorts(ports)
	must(t, err)
	if st := states[0]; !st.Attached || st.Datapath != DatapathTCX || st.Fallback == nil {
		t.Errorf("auto: %+v", st)
	}
	if st := states[1]; st.Attached || st.Err == nil || !strings.Contains(st.Err.Error(), "use datapath tcx") {
		t.Errorf("xdp: %+v", st)
	}
}

// TestDatapath_TCXKeepsSegmentationOffload: a TCP stream between two VMs with
// their usual offloads on. Nothing is cut into frames on the way, and the
// counters count what will be frames.
func TestDatapath_TCXKeepsSegmentationOffload(t *testing.T) {
	g := newGateway(t)
	g.attach(by(DatapathTCX, DatapathTCX))
	a, b := netip.MustParseAddrPort("10.0.0.1:3000"), netip.MustParseAddrPort("10.0.0.2:4000")
	g.addresses(a.Addr(), b.Addr())
	must(t, g.d.SetVM(1, VMEntry{Verdict: forward, Learn: true, Budget: 100, Name: "vm"}))
	key, from := NewFlowKey(unix.IPPROTO_TCP, a, b, 0, 0, 1)
	g.vm[0].ready()
	g.vm[1].ready()

	const size = 32 << 20
	decided := make(chan error, 1)
	go func() { decided <- g.decideWhenPending(key, from) }()
	before := byName(t, "vnic.0").Attrs().Statistics.RxPackets
	got := g.stream(a, b, size)
	must(t, <-decided)
	if got != size {
		t.Fatalf("%d bytes arrived, want %d", got, size)
	}
	skbs := byName(t, "vnic.0").Attrs().Statistics.RxPackets - before
	f, _, err := g.d.Flow(key)
	must(t, err)
	dir := f.Dir[from]
	if frames := uint64(size / 1448); dir.Packets < frames || dir.Packets > frames*3/2 || dir.Bytes < size+dir.Packets*66 {
		t.Errorf("counted %d frames and %d bytes, want about %d frames and their headers", dir.Packets, dir.Bytes, frames)
	}
	if skbs > dir.Packets/4 {
		t.Errorf("%d skbs for %d frames: segmentation offload is lost", skbs, dir.Packets)
	}
	t.Logf("%d skbs, %d frames, %d bytes", skbs, dir.Packets, dir.Bytes)
}

// decideWhenPending lets a flow pass once its first packet has come; the sender's
// retry finds it decided.
func (g *gateway) decideWhenPending(key FlowKey, from int) error {
	f, _, err := g.d.Flow(g.key)
	if err != nil {
		return err
	}
	there, back := f.Dir[f.Initiator], f.Dir[1-f.Initiator]
	for deadline := time.Now().Add(20 * time.Second); time.Now().Before(deadline); time.Sleep(time.Millisecond) {
		p, found, err := g.d.Pending(key)
		if err != nil {
			return err
		}
		if found {
			f.Dir[from], f.Dir[1-from], f.Initiator, f.SynSeq = there, back, from, p.SynSeq
			return g.d.PutFlow(key, f)
		}
	}
	return errors.New("the flow's first packet never came")
}

// addresses gives the stations addresses and tells each the other's MAC.
func (g *gateway) addresses(addrs ...netip.Addr) {
	g.t.Helper()
	for i, s := range g.vm {
		peer := g.vm[1-i]
		must(g.t, inNetNS(s.ns, func() error {
			dev, err := netlink.LinkByName("vm")
			if err != nil {
				return err
			}
			return errors.Join(
				netlink.AddrAdd(dev, &netlink.Addr{IPNet: &net.IPNet{IP: addrs[i].AsSlice(), Mask: net.CIDRMask(24, 32)}}),
				netlink.NeighSet(&netlink.Neigh{LinkIndex: dev.Attrs().Index, State: unix.NUD_PERMANENT,
					IP: addrs[1-i].AsSlice(), HardwareAddr: net.HardwareAddr(peer.mac[:])}))
		}))
	}
}

// stream sends size bytes over TCP from the first VM to the second and returns
// how many arrived.
func (g *gateway) stream(from, to netip.AddrPort, size int64) int64 {
	g.t.Helper()
	var listener net.Listener
	must(g.t, inNetNS(g.vm[1].ns, func() (err error) {
		listener, err = net.Listen("tcp4", to.String())
		return err
	}))
	defer listener.Close()
	got := make(chan int64, 1)
	go func() {
		n := int64(0)
		if c, err := listener.Accept(); err == nil {
			_ = c.SetDeadline(time.Now().Add(time.Minute))
			n, _ = io.Copy(io.Discard, c)
			_ = c.Close()
		}
		got <- n
	}()
	var c net.Conn
	must(g.t, inNetNS(g.vm[0].ns, func() (err error) {
		d := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(from), Timeout: 20 * time.Second, Control: reuse}
		c, err = d.Dial("tcp4", to.String())
		return err
	}))
	_ = c.SetDeadline(time.Now().Add(time.Minute))
	chunk := make([]byte, 1<<18)
	for sent := int64(0); sent < size; sent += int64(len(chunk)) {
		if _, err := c.Write(chunk); err != nil {
			g.t.Fatal(err)
		}
	}
	must(g.t, c.Close())
	return <-got
}

func reuse(_, _ string, c syscall.RawConn) error {
	var err error
	return errors.Join(c.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	}), err)
}

func TestDatapath_CheckedFlowOfTCXPortsGoesThroughTheEngine(t *testing.T) {
	g := newGateway(t)
	p := idsPortsInPlace(t)
	must(t, EnsureIDSPorts(p))
	for i, paths := range [][]Datapath{{DatapathTCX, DatapathTCX}, {DatapathXDP, DatapathTCX}} {
		t.Log(paths)
		ports := append([]Port{{ID: 3, Device: p.In, Kind: PortIDSIn, Group: 1}, {ID: 4, Device: p.Out, Kind: PortIDSOut, Group: 1}}, by(paths...)...)
		g.attach(ports)
		settings := testSettings
		settings.IDS[0] = IDSInstance{In: 3, Out: 4}
		must(t, g.d.SetSettings(settings))
		in, out := g.engine(p, p.EngineIn), g.engine(p, p.EngineOut)
		must(t, g.d.SetOwner(7, Owner{Verdict: check, VM: 1}))
		for _, s := range []*station{g.vm[0], g.vm[1], in, out} {
			s.ready()
		}
		g.vm[0].send(g.frame(10*i, false))
		in.receive(g.frame(10*i, false))
		out.send(g.frame(10*i, false))
		g.vm[1].receive(g.frame(10*i, false))
		g.vm[1].send(g.frame(10*i+1, true))
		out.receive(g.frame(10*i+1, true))
		in.send(g.frame(10*i+1, true))
		g.vm[0].receive(g.frame(10*i+1, true))
	}
}
