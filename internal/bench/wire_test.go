package bench_test

import (
	"encoding/binary"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/vmgate/vmgate/internal/lab"
)

// A wire is a generator, two interfaces of a gateway that something is to connect,
// and a sink: veths between three namespaces. All of it runs on the CPU that sends.
type wire struct {
	*lab.Lab
	b        *testing.B
	sender   *lab.Namespace
	gateway  *lab.Namespace
	sink     *lab.Namespace
	send     *ebpf.Program
	received *ebpf.Map
}

const (
	wireFlows = 1024
	firstPort = 10000

	portBits     = 10 // of a flow's number are its port, the rest its address
	portsPerHost = 1 << portBits

	inDevice   = "gw-a"
	outDevice  = "gw-b"
	frameBytes = 60 // 64 on a wire, with the checksum that veths do not carry
)

var (
	senderMAC   = net.HardwareAddr{0x02, 0x77, 0, 0, 0, 0x11}
	receiverMAC = net.HardwareAddr{0x02, 0x77, 0, 0, 0, 0x21}
	senderAddr  = netip.MustParseAddr("10.77.0.11")
	receiver    = netip.MustParseAddrPort("10.77.0.21:80")
)

func newWire(b *testing.B) *wire {
	b.Helper()
	w := plainWire(b)
	w.makeSink()
	w.sendFlows(wireFlows)
	return w
}

// plainWire is a wire without programs at its ends.
func plainWire(b *testing.B) *wire {
	b.Helper()
	l, err := lab.New(nil)
	must(b, err)
	b.Cleanup(func() { must(b, l.Close()) })
	w := &wire{Lab: l, b: b}
	w.sender, err = l.NewNamespace("send")
	must(b, err)
	w.gateway, err = l.NewNamespace("gw")
	must(b, err)
	w.sink, err = l.NewNamespace("sink")
	must(b, err)
	must(b, w.gateway.AddVeth(inDevice, w.sender, "eth0"))
	must(b, w.gateway.AddVeth(outDevice, w.sink, "eth0"))
	for _, device := range []string{inDevice, outDevice} {
		must(b, w.gateway.SetUp(device))
	}
	must(b, w.sender.SetUp("eth0"))
	must(b, w.sink.SetUp("eth0"))
	return w
}

// makeSink counts and drops what arrives.
func (w *wire) makeSink() {
	w.b.Helper()
	var err error
	w.received, err = ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.PerCPUArray, KeySize: 4, ValueSize: 8, MaxEntries: 1})
	must(w.b, err)
	w.b.Cleanup(func() { w.received.Close() })
	prog := w.program(asm.Instructions{
		asm.StoreImm(asm.RFP, -4, 0, asm.Word),
		asm.Mov.Reg(asm.R2, asm.RFP),
		asm.Add.Imm(asm.R2, -4),
		asm.LoadMapPtr(asm.R1, w.received.FD()),
		asm.FnMapLookupElem.Call(),
		asm.JEq.Imm(asm.R0, 0, "drop"),
		asm.LoadMem(asm.R1, asm.R0, 0, asm.DWord),
		asm.Add.Imm(asm.R1, 1),
		asm.StoreMem(asm.R0, 0, asm.R1, asm.DWord),
		asm.Mov.Imm(asm.R0, 1).WithSymbol("drop"), // XDP_DROP
		asm.Return(),
	})
	must(w.b, w.sink.Do(func() error { return w.attach(prog, "eth0") }))
}

// sendFlows makes the program that sends: each frame is of one of so many flows,
// chosen evenly, and goes out of the sender's interface.
func (w *wire) sendFlows(flows int) {
	w.b.Helper()
	device, err := w.sender.Netlink().LinkByName("eth0")
	must(w.b, err)
	host := binary.BigEndian.Uint16(senderAddr.AsSlice()[2:])
	w.send = w.program(asm.Instructions{
		asm.LoadMem(asm.R6, asm.R1, 0, asm.Word),
		asm.LoadMem(asm.R7, asm.R1, 4, asm.Word),
		asm.Mov.Reg(asm.R8, asm.R6),
		asm.Add.Imm(asm.R8, 36),
		asm.JGT.Reg(asm.R8, asm.R7, "send"),
		asm.FnGetPrandomU32.Call(),
		asm.Mod.Imm32(asm.R0, int32(flows)),
		asm.Mov.Reg(asm.R1, asm.R0),
		asm.And.Imm(asm.R1, portsPerHost-1),
		asm.Add.Imm(asm.R1, firstPort),
		asm.HostTo(asm.BE, asm.R1, asm.Half),
		asm.StoreMem(asm.R6, 34, asm.R1, asm.Half),
		asm.RSh.Imm(asm.R0, portBits),
		asm.Add.Imm(asm.R0, int32(host)),
		asm.HostTo(asm.BE, asm.R0, asm.Half),
		asm.StoreMem(asm.R6, 28, asm.R0, asm.Half),
		asm.Mov.Imm(asm.R1, int32(device.Attrs().Index)).WithSymbol("send"),
		asm.Mov.Imm(asm.R2, 0),
		asm.FnRedirect.Call(),
		asm.Return(),
	})
}

// flow is where the n-th flow of a wire comes from.
func flow(n int) netip.AddrPort {
	addr := senderAddr.As4()
	binary.BigEndian.PutUint16(addr[2:], binary.BigEndian.Uint16(addr[2:])+uint16(n>>portBits))
	return netip.AddrPortFrom(netip.AddrFrom4(addr), firstPort+uint16(n%portsPerHost))
}

// bareRedirect connects the gateway's interfaces by a program that looks at
// nothing: the limit of what XDP can do here.
func (w *wire) bareRedirect() *ebpf.Program {
	w.b.Helper()
	device, err := w.gateway.Netlink().LinkByName(outDevice)
	must(w.b, err)
	return w.program(asm.Instructions{
		asm.Mov.Imm(asm.R1, int32(device.Attrs().Index)),
		asm.Mov.Imm(asm.R2, 0),
		asm.FnRedirect.Call(),
		asm.Return(),
	})
}

func (w *wire) bareDrop() *ebpf.Program {
	w.b.Helper()
	return w.program(asm.Instructions{asm.Mov.Imm(asm.R0, 1), asm.Return()})
}

func (w *wire) program(code asm.Instructions) *ebpf.Program {
	w.b.Helper()
	prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.XDP, Instructions: code, License: "GPL"})
	must(w.b, err)
	w.b.Cleanup(func() { prog.Close() })
	return prog
}

// attach attaches a program to a device of the calling thread's namespace, until
// the benchmark ends.
func (w *wire) attach(prog *ebpf.Program, device string) error {
	l, err := attachXDP(prog, device)
	if err == nil {
		w.b.Cleanup(func() { l.Close() })
	}
	return err
}

func attachXDP(prog *ebpf.Program, device string) (link.Link, error) {
	index, err := net.InterfaceByName(device)
	if err != nil {
		return nil, err
	}
	return link.AttachXDP(link.XDPOptions{Program: prog, Interface: index.Index, Flags: link.XDPDriverMode})
}

// frame is a 64-byte UDP packet without checksum, which XDP does not look at.
func frame() []byte {
	f := make([]byte, frameBytes)
	copy(f[0:], receiverMAC)
	copy(f[6:], senderMAC)
	binary.BigEndian.PutUint16(f[12:], 0x0800)
	ip := f[14:34]
	ip[0], ip[8], ip[9] = 0x45, 64, unix.IPPROTO_UDP
	binary.BigEndian.PutUint16(ip[2:], frameBytes-14)
	src, dst := senderAddr.As4(), receiver.Addr().As4()
	copy(ip[12:], src[:])
	copy(ip[16:], dst[:])
	var sum uint32
	for i := 0; i < len(ip); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(ip[i:]))
	}
	binary.BigEndian.PutUint16(ip[10:], ^uint16(sum+sum>>16))
	binary.BigEndian.PutUint16(f[34:], firstPort)
	binary.BigEndian.PutUint16(f[36:], receiver.Port())
	binary.BigEndian.PutUint16(f[38:], frameBytes-34)
	return f
}

// pour sends frames and returns how many a second were sent, and how many of
// them arrived.
func (w *wire) pour(frames int) (perSecond float64, arrived uint64) {
	w.b.Helper()
	before := w.arrived()
	var took time.Duration
	alone(w.b, func() error {
		return w.sender.Do(func() error {
			begin := time.Now()
			_, err := w.send.Run(&ebpf.RunOptions{Data: frame(), Repeat: uint32(frames), Flags: unix.BPF_F_TEST_XDP_LIVE_FRAMES, BatchSize: 64})
			took = time.Since(begin)
			return err
		})
	})
	return float64(frames) / took.Seconds(), w.arrived() - before
}

func (w *wire) arrived() (sum uint64) {
	w.b.Helper()
	var counts []uint64
	must(w.b, w.received.Lookup(uint32(0), &counts))
	for _, n := range counts {
		sum += n
	}
	return sum
}
