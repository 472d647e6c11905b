package bpf_test

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/google/gopacket/layers"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/vmgate/vmgate/bpf"
)

// freshNetns moves the test to a network namespace of its own.
func freshNetns(t *testing.T) {
	t.Helper()
	runtime.LockOSThread()
	before, err := netns.Get()
	if err != nil {
		t.Fatal(err)
	}
	ns, err := netns.New()
	if err != nil {
		t.Skipf("needs the right to make network namespaces: %v", err)
	}
	t.Cleanup(func() {
		_ = ns.Close()
		if err := netns.Set(before); err != nil {
			t.Fatal(err) // the thread stays locked and dies with the test
		}
		_ = before.Close()
		runtime.UnlockOSThread()
	})
	// The kernel's own chatter would mix with the test's frames.
	if err := os.WriteFile("/proc/sys/net/ipv6/conf/default/disable_ipv6", []byte("1"), 0); err != nil {
		t.Fatal(err)
	}
}

// veth makes a pair that is up and returns its ends.
func veth(t *testing.T, name, peer string) (netlink.Link, netlink.Link) {
	t.Helper()
	err := netlink.LinkAdd(&netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: name}, PeerName: peer})
	if errors.Is(err, unix.EOPNOTSUPP) {
		t.Skipf("needs veth devices: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	var ends [2]netlink.Link
	for i, n := range []string{name, peer} {
		l, err := netlink.LinkByName(n)
		if err != nil {
			t.Fatal(err)
		}
		if err := netlink.LinkSetUp(l); err != nil {
			t.Fatal(err)
		}
		ends[i] = l
	}
	return ends[0], ends[1]
}

// recorder is a TC program that notes each skb's mark and whether metadata is
// still in front of it, and the map it writes to: 0 the mark, 1 the metadata's
// first word, 2 the number of frames.
func recorder(t *testing.T) (*ebpf.Program, *ebpf.Map) {
	t.Helper()
	m, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Array, KeySize: 4, ValueSize: 4, MaxEntries: 3})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = m.Close() })
	// value(i) leaves a pointer to slot i in R0; R6 is the context.
	value := func(i int32) asm.Instructions {
		return asm.Instructions{
			asm.StoreImm(asm.RFP, -4, int64(i), asm.Word),
			asm.LoadMapPtr(asm.R1, m.FD()),
			asm.Mov.Reg(asm.R2, asm.RFP),
			asm.Add.Imm(asm.R2, -4),
			asm.FnMapLookupElem.Call(),
			asm.JEq.Imm(asm.R0, 0, "out"),
		}
	}
	const offMark, offData, offMeta = 8, 76, 140
	insns := asm.Instructions{asm.Mov.Reg(asm.R6, asm.R1)}
	insns = append(insns, value(0)...)
	insns = append(insns, asm.LoadMem(asm.R1, asm.R6, offMark, asm.Word), asm.StoreMem(asm.R0, 0, asm.R1, asm.Word))
	insns = append(insns, value(1)...)
	insns = append(insns,
		asm.LoadMem(asm.R2, asm.R6, offMeta, asm.Word),
		asm.LoadMem(asm.R3, asm.R6, offData, asm.Word),
		asm.Mov.Reg(asm.R4, asm.R2),
		asm.Add.Imm(asm.R4, 8),
		asm.JGT.Reg(asm.R4, asm.R3, "count"),
		asm.LoadMem(asm.R1, asm.R2, 0, asm.Word),
		asm.StoreMem(asm.R0, 0, asm.R1, asm.Word),
	)
	tail := value(2)
	tail[0] = tail[0].WithSymbol("count")
	insns = append(insns, tail...)
	insns = append(insns,
		asm.LoadMem(asm.R1, asm.R0, 0, asm.Word), asm.Add.Imm(asm.R1, 1), asm.StoreMem(asm.R0, 0, asm.R1, asm.Word),
		asm.Mov.Imm(asm.R0, -1).WithSymbol("out"), // the next program decides
		asm.Return(),
	)
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.SchedCLS, License: "GPL", Instructions: insns})
	if err != nil {
		t.Fatalf("%+v", err)
	}
	t.Cleanup(func() { _ = p.Close() })
	return p, m
}

func attachTCX(t *testing.T, l netlink.Link, p *ebpf.Program, at ebpf.AttachType) {
	t.Helper()
	tcx, err := link.AttachTCX(link.TCXOptions{Interface: l.Attrs().Index, Program: p, Attach: at})
	if errors.Is(err, ebpf.ErrNotSupported) {
		t.Skipf("needs TCX (Linux 6.6): %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = tcx.Close() })
}

// send puts a frame on the wire at l.
func send(t *testing.T, l netlink.Link, frame []byte) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := unix.Sendto(fd, frame, 0, &unix.SockaddrLinklayer{Ifindex: l.Attrs().Index}); err != nil {
		t.Fatal(err)
	}
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
	}
}

// bridged joins two vNICs by the kernel's bridge: in by g's programs, out by
// w's. It returns the VMs' ends, what the recorder before w's egress saw, and
// g's XDP attachment.
func bridged(t *testing.T, g, w *gateway) (app, peer netlink.Link, seen *ebpf.Map, xdp link.Link) {
	t.Helper()
	gwIn, app := veth(t, "gw-app", "app")
	gwOut, peer := veth(t, "gw-web", "web")
	snooping := false // a snooping bridge sends IGMP reports of its own
	bridge := &netlink.Bridge{LinkAttrs: netlink.LinkAttrs{Name: "gw"}, MulticastSnooping: &snooping}
	if err := netlink.LinkAdd(bridge); err != nil {
		t.Fatal(err)
	}
	for _, l := range []netlink.Link{gwIn, gwOut} {
		if err := netlink.LinkSetMaster(l, bridge); err != nil {
			t.Fatal(err)
		}
	}
	if err := netlink.LinkSetUp(bridge); err != nil {
		t.Fatal(err)
	}
	rec, seen := recorder(t)
	xdp, err := link.AttachXDP(link.XDPOptions{Program: g.progs["vmgate_ingress"], Interface: gwIn.Attrs().Index, Flags: link.XDPDriverMode})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = xdp.Close() })
	attachTCX(t, gwIn, g.progs["vmgate_mark"], ebpf.AttachTCXIngress)
	attachTCX(t, gwOut, rec, ebpf.AttachTCXEgress)
	attachTCX(t, gwOut, w.progs["vmgate_egress"], ebpf.AttachTCXEgress)
	return app, peer, seen, xdp
}

// TestHooks_EgressKnowsTheTagsThatTheKernelHoldsBesideTheFrame: a VM that was
// cut off while its tagged frames were on their way.
func TestHooks_EgressKnowsTheTagsThatTheKernelHoldsBesideTheFrame(t *testing.T) {
	freshNetns(t)
	g := newGateway(t)
	// Maps of its own, so that the isolation is seen at egress only.
	w := load(t, pathXDP, bpf.VmgatePortConfig{Id: portWeb, Segment: portWeb, Group: group}, nil)
	w.populate()
	w.vmVerdict(idApp1, drop)
	app, _, _, _ := bridged(t, g, w)
	for key, tags := range map[uint32][]layers.Dot1Q{5 << 16: vlan(5), 5<<16 | 6: vlan(5, 6)} {
		g.macAt(key, macApp1, idApp1, portApp)
		w.macAt(key, macApp1, idApp1, portApp)
		before := w.counters(portWeb)
		eventually(t, "egress stops it", func() bool {
			send(t, app, dhcp(macApp1, broadcast, macApp1, layers.DHCPOpRequest).with(func(p *packet) { p.tags = tags }).build(t))
			return diff(before, w.counters(portWeb))[bpf.VmgateReasonREASON_DROP_VERDICT].Packets > 0
		})
	}
}

// TestHooks_MarkTravelsFromXDPThroughTheBridgeToEgress is the way of a packet
// that goes up, over real devices: XDP's metadata becomes the mark at TC
// ingress, is gone afterwards, and lets the frame out at TC egress.
func TestHooks_MarkTravelsFromXDPThroughTheBridgeToEgress(t *testing.T) {
	freshNetns(t)
	g := newGateway(t)
	w := g.webSide()
	g.vm(idApp1, func(vm *bpf.VmgateVm) { vm.Flags = bpf.VmgateVmFlagVM_ROUTER })
	app, peer, seen, xdp := bridged(t, g, w)
	word := func(i uint32) (v uint32) {
		if err := seen.Lookup(i, &v); err != nil {
			t.Fatal(err)
		}
		return v
	}
	arrived := listen(t, peer)
	advert := nd(macApp1, mac("33:33:00:00:00:01"), netip.MustParseAddr("fe80::1"), netip.MustParseAddr("ff02::1"), 255, 134, make([]byte, 12)...).build(t)
	before := w.counters(portWeb)
	// A new bridge port may still be learning; the sender tries again.
	eventually(t, "the advertisement crosses the bridge", func() bool {
		send(t, app, advert)
		return arrived(advert)
	})
	if got := word(0); got != uint32(bpf.VmgateMarkMARK_CONTROL) {
		t.Errorf("mark %#x at egress, want MARK_CONTROL", got)
	}
	if got := word(1); got == metaMagic {
		t.Error("the metadata is still there at egress")
	}
	sent := diff(before, w.counters(portWeb))
	if sent[bpf.VmgateReasonREASON_EGRESS].Packets == 0 {
		t.Errorf("counted %v", sent)
	}

	// A punted packet that nobody has released ends at egress (of a tagged
	// one the kernel holds the tag beside the frame).
	g.macAt(5<<16, macApp1, idApp1, portApp)
	g.macAt(5<<16, macWeb, idWeb, portWeb)
	arrives := func(what string, frame []byte, mark bpf.VmgateMark, reason bpf.VmgateReason) {
		t.Helper()
		before, frames := w.counters(portWeb), word(2)
		send(t, app, frame)
		eventually(t, what+" reaches egress", func() bool { return word(2) > frames })
		if got := word(0); got != uint32(mark) {
			t.Errorf("%s: mark %#x, want %#x", what, got, mark)
		}
		eventually(t, what+" is counted", func() bool {
			return diff(before, w.counters(portWeb))[reason].Packets > 0
		})
	}
	tagged := udpApp1ToWeb(1, 2).with(func(p *packet) { p.tags = vlan(5) }).build(t)
	arrives("an untagged packet", udpApp1ToWeb(1, 2).build(t), bpf.VmgateMarkMARK_PUNT, bpf.VmgateReasonREASON_DROP_EGRESS)
	arrives("a tagged packet", tagged, bpf.VmgateMarkMARK_PUNT|5, bpf.VmgateReasonREASON_DROP_EGRESS)

	// Without XDP nothing gets past TC ingress.
	if err := xdp.Close(); err != nil {
		t.Fatal(err)
	}
	before = g.counters(portApp)
	send(t, app, advert)
	eventually(t, "TC ingress drops what bears no metadata", func() bool {
		return diff(before, g.counters(portApp))[bpf.VmgateReasonREASON_DROP_INGRESS].Packets > 0
	})
}

// listen opens a packet socket on l; the returned function says whether the
// frame has arrived there.
func listen(t *testing.T, l netlink.Link) func([]byte) bool {
	t.Helper()
	all := binary.NativeEndian.Uint16(binary.BigEndian.AppendUint16(nil, unix.ETH_P_ALL))
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, int(all))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(fd) })
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Ifindex: l.Attrs().Index, Protocol: all}); err != nil {
		t.Fatal(err)
	}
	return func(frame []byte) bool {
		buf := make([]byte, 2048)
		for {
			n, _, err := unix.Recvfrom(fd, buf, 0)
			if err != nil {
				return false
			}
			if string(buf[:n]) == string(frame) {
				return true
			}
		}
	}
}
