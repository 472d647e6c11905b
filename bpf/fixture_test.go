package bpf_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/rlimit"
	"golang.org/x/sys/unix"

	"github.com/vmgate/vmgate/bpf"
)

// The topology of all tests, in one layer 2 group. app1 and app2 share a vSwitch.
const (
	portApp    = 1
	portWeb    = 2
	portRouter = 3
	portIDSIn  = 10
	portIDSOut = 11
	otherIn    = 12 // of a second engine
	otherOut   = 13

	idApp1   = 1
	idWeb    = 2
	idApp2   = 3
	idRouter = 4

	group    = 7
	theRule  = 5
	ownerApp = 21
	ownerWeb = 22
	second   = uint64(1e9)
	// loopback stands for every device: a test run asks only whether the device
	// map has an entry.
	loopback = 1
)

var (
	macApp1    = mac("02:00:00:00:00:01")
	macWeb     = mac("02:00:00:00:00:02")
	macApp2    = mac("02:00:00:00:00:03")
	macRouter  = mac("02:00:00:00:00:04")
	macGateway = mac("02:00:00:00:00:0f")
	macNobody  = mac("02:00:00:00:00:99")
	broadcast  = mac("ff:ff:ff:ff:ff:ff")

	app1  = netip.MustParseAddr("10.0.0.1")
	web   = netip.MustParseAddr("10.0.0.2")
	app2  = netip.MustParseAddr("10.0.0.3")
	gw    = netip.MustParseAddr("10.0.0.4")
	app16 = netip.MustParseAddr("2001:db8::1")
	web6  = netip.MustParseAddr("2001:db8::2")
	app26 = netip.MustParseAddr("2001:db8::3")
	gw6   = netip.MustParseAddr("fe80::4")
	none4 = netip.IPv4Unspecified()
	none6 = netip.IPv6Unspecified()
	far   = netip.MustParseAddr("192.0.2.1")
	far6  = netip.MustParseAddr("2001:db8:ffff::1")
)

func mac(s string) net.HardwareAddr {
	m, err := net.ParseMAC(s)
	if err != nil {
		panic(err)
	}
	return m
}

// gateway is one port's copy of the programs over maps of its own.
type gateway struct {
	testing.TB
	port  uint32
	path  datapath
	strip *stripper // for TCX
	progs map[string]*ebpf.Program
	maps  map[string]*ebpf.Map
}

// newGateway loads the programs for the port that app1 and app2 are behind.
func newGateway(t testing.TB) *gateway {
	t.Helper()
	return newGatewayOn(t, pathXDP)
}

func newGatewayOn(t testing.TB, path datapath) *gateway {
	t.Helper()
	g := load(t, path, bpf.VmgatePortConfig{Id: portApp, Segment: portApp, Group: group}, nil)
	g.populate()
	return g
}

// load skips where the kernel does not let this process load programs.
func load(t testing.TB, path datapath, port bpf.VmgatePortConfig, shared map[string]*ebpf.Map) *gateway {
	t.Helper()
	if err := rlimit.RemoveMemlock(); err != nil {
		t.Skipf("needs the right to load BPF programs: %v", err)
	}
	spec, err := bpf.LoadVmgate()
	if err != nil {
		t.Fatal(err)
	}
	if err := spec.Variables["port"].Set(port); err != nil {
		t.Fatal(err)
	}
	if _, measures := t.(*testing.B); !measures {
		for _, name := range []string{"flows", "pending", "verdicts", "fragments"} {
			spec.Maps[name].MaxEntries = 1 << 10 // tests empty them often
		}
	}
	delete(spec.Programs, map[datapath]string{pathXDP: "vmgate_tcx", pathTCX: "vmgate_ingress"}[path])
	coll, err := ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{MapReplacements: shared})
	if errors.Is(err, unix.EPERM) {
		t.Skipf("needs the right to load BPF programs: %v", err)
	}
	if err != nil {
		t.Fatalf("%+v", err)
	}
	t.Cleanup(coll.Close)
	g := &gateway{TB: t, port: port.Id, path: path, progs: coll.Programs, maps: coll.Maps}
	if path == pathTCX {
		g.strip = newStripper(t, coll.Programs["vmgate_tcx"])
	}
	return g
}

// on returns the programs of another port over the same maps.
func (g *gateway) on(port bpf.VmgatePortConfig) *gateway {
	g.Helper()
	shared := map[string]*ebpf.Map{}
	for name, m := range g.maps {
		if name != ".rodata" {
			shared[name] = m
		}
	}
	return load(g.TB, g.path, port, shared)
}

func (g *gateway) ids(id uint32) *gateway {
	kind := bpf.VmgatePortKindPORT_IDS_IN
	if id == portIDSOut {
		kind = bpf.VmgatePortKindPORT_IDS_OUT
	}
	return g.on(bpf.VmgatePortConfig{Id: id, Kind: uint32(kind), Group: group})
}

// put writes one map entry.
func (g *gateway) put(name string, key, value any) {
	g.Helper()
	if err := g.maps[name].Put(key, value); err != nil {
		g.Fatalf("put %s: %v", name, err)
	}
}

func (g *gateway) populate() {
	g.Helper()
	g.set(func(*bpf.VmgateSettings) {})
	g.beat(now())
	for _, port := range []uint32{portApp, portWeb, portRouter, portIDSIn, portIDSOut, otherIn, otherOut} {
		g.put("tx_ports", port, uint32(loopback))
		g.put("ports", port, bpf.VmgatePort{Ifindex: loopback})
	}
	g.vm(0, func(*bpf.VmgateVm) {})
	for id := uint32(idApp1); id <= idRouter; id++ {
		g.vm(id, func(vm *bpf.VmgateVm) {
			if id == idRouter {
				vm.Flags = bpf.VmgateVmFlagVM_ROUTER | bpf.VmgateVmFlagVM_DHCP_SERVER
			}
		})
	}
	g.macAt(0, macApp1, idApp1, portApp)
	g.macAt(0, macWeb, idWeb, portWeb)
	g.macAt(0, macApp2, idApp2, portApp)
	g.macAt(0, macRouter, idRouter, portRouter)
	g.address(idApp1, app1, portApp, macApp1)
	g.address(idApp1, app16, portApp, macApp1)
	g.address(idWeb, web, portWeb, macWeb)
	g.address(idWeb, web6, portWeb, macWeb)
	g.address(idApp2, app2, portApp, macApp2)
	g.address(idApp2, app26, portApp, macApp2)
	g.address(idRouter, gw, portRouter, macRouter)
	g.rule(bpf.VmgateVerdictVERDICT_FORWARD)
	g.owner(0, bpf.VmgateVerdictVERDICT_FORWARD)
	g.owner(ownerApp, bpf.VmgateVerdictVERDICT_FORWARD)
	g.owner(ownerWeb, bpf.VmgateVerdictVERDICT_FORWARD)
}

// set writes the settings: the defaults of the tests, changed by change.
func (g *gateway) set(change func(*bpf.VmgateSettings)) {
	g.Helper()
	s := bpf.VmgateSettings{
		HeldPerFlow:      2,
		HeartbeatTimeout: 3 * second,
		PendingTimeout:   10 * second,
		TcpEstablished:   100 * second,
		TcpTransient:     30 * second,
		UdpIdle:          60 * second,
		OtherIdle:        20 * second,
	}
	s.Ids[0].In, s.Ids[0].Out = portIDSIn, portIDSOut
	change(&s)
	g.put("settings", uint32(0), s)
}

func (g *gateway) mode(mode bpf.VmgateMode) {
	g.Helper()
	g.set(func(s *bpf.VmgateSettings) { s.Mode = mode })
}

func (g *gateway) beat(at uint64) {
	g.Helper()
	g.put("heartbeat", uint32(0), at)
}

// vm writes a VM's slot: VERDICT_FORWARD, changed by change.
func (g *gateway) vm(id uint32, change func(*bpf.VmgateVm)) {
	g.Helper()
	vm := bpf.VmgateVm{Verdict: bpf.VmgateVerdictVERDICT_FORWARD}
	change(&vm)
	g.put("vms", id, vm)
}

func (g *gateway) vmVerdict(id uint32, v bpf.VmgateVerdict) {
	g.Helper()
	g.vm(id, func(vm *bpf.VmgateVm) { vm.Verdict = v; vm.Cause = bpf.VmgateCauseCAUSE_OPERATOR })
}

func (g *gateway) rule(v bpf.VmgateVerdict) {
	g.Helper()
	g.put("rules", uint32(theRule), bpf.VmgateRule{Verdict: v, Cause: bpf.VmgateCauseCAUSE_RULE})
}

func (g *gateway) owner(id uint32, v bpf.VmgateVerdict) {
	g.Helper()
	g.put("owners", id, bpf.VmgateOwner{Verdict: v, Cause: bpf.VmgateCauseCAUSE_MALICIOUS})
}

func (g *gateway) portFlags(id uint32, flags bpf.VmgatePortFlag) {
	g.Helper()
	g.put("ports", id, bpf.VmgatePort{Ifindex: loopback, Flags: flags})
}

// macAt says who speaks with a MAC; segments are numbered like their ports.
func (g *gateway) macAt(vlan uint32, m net.HardwareAddr, vm, port uint32) {
	g.Helper()
	g.put("vm_macs", bpf.VmgateMacKey{Vlan: vlan, Mac: [6]byte(m), Group: group},
		bpf.VmgateMacEntry{Vm: vm, Segment: port, Port: port})
}

func addrKey(vm uint32, p netip.Prefix) bpf.VmgateAddrKey {
	bits := p.Bits()
	if p.Addr().Is4() {
		bits += 96
	}
	var be [4]byte
	binary.BigEndian.PutUint32(be[:], vm)
	return bpf.VmgateAddrKey{
		Prefixlen: uint32(32 + bits),
		Vm:        binary.NativeEndian.Uint32(be[:]),
		Addr:      p.Addr().As16(),
	}
}

func host(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }

// address gives a VM an address, in both views of the map.
func (g *gateway) address(vm uint32, a netip.Addr, port uint32, m net.HardwareAddr) {
	g.Helper()
	g.prefix(vm, host(a), port, m)
}

func (g *gateway) prefix(vm uint32, p netip.Prefix, port uint32, m net.HardwareAddr) {
	g.Helper()
	key := addrKey(vm, p)
	entry := bpf.VmgateAddrEntry{Vm: vm, Port: port, Mac: [6]byte(m), Bits: uint16(key.Prefixlen - 32)}
	g.put("vm_addrs", key, entry)
	g.put("vm_addrs", addrKey(0, p), entry)
}

// now reads the daemon's clock.
func now() uint64 {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		panic(err)
	}
	return uint64(ts.Nano())
}

const (
	xdpDrop     = 1
	xdpPass     = 2
	xdpRedirect = 4
	tcOK        = 0
	tcShot      = 2
	tcRedirect  = 7
	metaLen     = 12
	metaMagic   = 0x766d6774
)

// outcome is what became of one frame.
type outcome struct {
	action  uint32
	out     []byte // as it left, without metadata
	mark    bpf.VmgateMark
	counted map[bpf.VmgateReason]bpf.VmgateCounter
}

// run sends one frame through the program of the data path, or vmgate_ids on an
// IDS port.
func (g *gateway) run(frame []byte) outcome {
	g.Helper()
	before := g.counters(g.port)
	o := g.fire(frame)
	o.counted = diff(before, g.counters(g.port))
	return o
}

// fire is run without a look at the counters.
func (g *gateway) fire(frame []byte) outcome {
	g.Helper()
	prog := g.progs["vmgate_ingress"]
	switch {
	case g.port == portIDSIn || g.port == portIDSOut:
		prog = g.progs["vmgate_ids"]
	case g.path == pathTCX:
		return g.fireTCX(frame)
	}
	opts := ebpf.RunOptions{Data: frame, DataOut: make([]byte, len(frame)+256), Repeat: 1}
	action, err := prog.Run(&opts)
	if err != nil {
		g.Fatalf("run: %v", err)
	}
	o := outcome{action: action, out: opts.DataOut}
	if len(o.out) == len(frame)+metaLen {
		if binary.NativeEndian.Uint32(o.out) != metaMagic {
			g.Fatalf("metadata without the magic: % x", o.out[:metaLen])
		}
		o.mark = bpf.VmgateMark(binary.NativeEndian.Uint32(o.out[4:]))
		o.out = o.out[metaLen:]
	}
	return o
}

func (g *gateway) counters(port uint32) map[bpf.VmgateReason]bpf.VmgateCounter {
	g.Helper()
	sums := map[bpf.VmgateReason]bpf.VmgateCounter{}
	for r := bpf.VmgateReason(0); r < bpf.VmgateReasonREASON_MAX; r++ {
		var perCPU []bpf.VmgateCounter
		index := port*uint32(bpf.VmgateReasonREASON_MAX) + uint32(r)
		if err := g.maps["stats"].Lookup(index, &perCPU); err != nil {
			g.Fatal(err)
		}
		var sum bpf.VmgateCounter
		for _, c := range perCPU {
			sum.Packets += c.Packets
			sum.Bytes += c.Bytes
		}
		sums[r] = sum
	}
	return sums
}

func diff(before, after map[bpf.VmgateReason]bpf.VmgateCounter) map[bpf.VmgateReason]bpf.VmgateCounter {
	changed := map[bpf.VmgateReason]bpf.VmgateCounter{}
	for r, a := range after {
		if b := before[r]; a != b {
			changed[r] = bpf.VmgateCounter{Packets: a.Packets - b.Packets, Bytes: a.Bytes - b.Bytes}
		}
	}
	return changed
}

// want says what shall become of a frame.
type want struct {
	action uint32
	reason bpf.VmgateReason
	port   uint32         // of a redirect
	mark   bpf.VmgateMark // of a frame that goes up
	out    []byte         // if not as it came
}

func redirected(port uint32, reason bpf.VmgateReason) want {
	return want{action: xdpRedirect, reason: reason, port: port}
}

func forwardedTo(port uint32) want { return redirected(port, bpf.VmgateReasonREASON_FORWARD) }
func controlTo(port uint32) want   { return redirected(port, bpf.VmgateReasonREASON_CONTROL) }
func checkedBy(port uint32) want   { return redirected(port, bpf.VmgateReasonREASON_CHECK) }

func dropped(reason bpf.VmgateReason) want { return want{action: xdpDrop, reason: reason} }

func punted() want { return puntedWith(0) }

func puntedWith(vlan bpf.VmgateMark) want {
	return want{action: xdpPass, reason: bpf.VmgateReasonREASON_PUNT, mark: bpf.VmgateMarkMARK_PUNT | vlan}
}

func floodedTo(where bpf.VmgateMark) want {
	return want{action: xdpPass, reason: bpf.VmgateReasonREASON_CONTROL, mark: bpf.VmgateMarkMARK_CONTROL | where}
}

var (
	toRouters  = floodedTo(bpf.VmgateMarkMARK_CONTROL_ROUTER)
	toAll      = floodedTo(0)
	absorbed   = dropped(bpf.VmgateReasonREASON_CONTROL_ABSORBED)
	spoofed    = dropped(bpf.VmgateReasonREASON_DROP_SPOOF)
	malformed  = dropped(bpf.VmgateReasonREASON_DROP_MALFORMED)
	unparsed   = dropped(bpf.VmgateReasonREASON_DROP_UNPARSED)
	cutOff     = dropped(bpf.VmgateReasonREASON_DROP_VERDICT)
	lying      = dropped(bpf.VmgateReasonREASON_DROP_CONTROL)
	badPiece   = dropped(bpf.VmgateReasonREASON_DROP_FRAGMENT)
	unknownDst = dropped(bpf.VmgateReasonREASON_DROP_UNKNOWN_DEST)
)

// rewritten says that the Ethernet destination, and nothing else, is another.
func (w want) rewritten(frame []byte, dst net.HardwareAddr) want {
	w.out = bytes.Clone(frame)
	copy(w.out, dst)
	return w
}

// expect sends a frame and compares action, bytes, counters, mark and port. A
// redirect is proved to be towards the wanted port by leaving only that port in
// the device map.
func (g *gateway) expect(frame []byte, w want) {
	g.Helper()
	if w.action == xdpRedirect {
		g.onlyPort(w.port)
		defer g.allPorts()
	}
	o := g.run(frame)
	if err := w.compare(frame, o); err != nil {
		g.Errorf("%v\nframe % x", err, frame)
	}
}

func (w want) compare(frame []byte, o outcome) error {
	exact := map[bpf.VmgateReason]bpf.VmgateCounter{w.reason: {Packets: 1, Bytes: uint64(len(frame))}}
	out := w.out
	if out == nil {
		out = frame
	}
	switch {
	case o.action != w.action:
		return fmt.Errorf("action %d counted %v, want %d for reason %d", o.action, o.counted, w.action, w.reason)
	case len(o.counted) != 1 || o.counted[w.reason] != exact[w.reason]:
		return fmt.Errorf("counted %v, want %v", o.counted, exact)
	case o.mark != w.mark:
		return fmt.Errorf("mark %#x, want %#x", o.mark, w.mark)
	case !bytes.Equal(o.out, out):
		return fmt.Errorf("left as % x, want % x", o.out, out)
	}
	return nil
}

var devices = []uint32{portApp, portWeb, portRouter, portIDSIn, portIDSOut, otherIn, otherOut}

func (g *gateway) onlyPort(port uint32) {
	g.Helper()
	for _, p := range devices {
		if p != port {
			g.device(p, 0)
			if err := g.maps["tx_ports"].Delete(p); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
				g.Fatal(err)
			}
		}
	}
}

func (g *gateway) allPorts() {
	g.Helper()
	for _, p := range devices {
		g.put("tx_ports", p, uint32(loopback))
		g.device(p, loopback)
	}
}

// device says where a port is, and leaves its flags alone.
func (g *gateway) device(port, ifindex uint32) {
	g.Helper()
	var p bpf.VmgatePort
	if err := g.maps["ports"].Lookup(port, &p); err != nil {
		g.Fatal(err)
	}
	p.Ifindex = ifindex
	g.put("ports", port, p)
}

// empty removes every entry of a hash map.
func (g *gateway) empty(name string) {
	g.Helper()
	m := g.maps[name]
	for {
		key, err := m.NextKeyBytes(nil)
		if err != nil {
			g.Fatal(err)
		}
		if key == nil {
			return
		}
		if err := m.Delete(key); err != nil {
			g.Fatal(err)
		}
	}
}
