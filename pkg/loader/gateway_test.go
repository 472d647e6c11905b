package loader

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"os"
	"testing"
	"time"

	"github.com/cilium/ebpf/link"
	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"golang.org/x/sys/unix"
)

const (
	forward = 1
	check   = 2
	drop    = 3
)

// gateway is two stations with a data plane between them: VM 1 at port 1, VM 2
// at port 2, and one decided UDP flow from the first to the second, with
// process 7 as the owner of its first end.
type gateway struct {
	t    *testing.T
	d    *Dataplane
	pins string
	vm   [2]*station
	key  FlowKey
}

var testPorts = []Port{
	{ID: 1, Device: "vnic.0", Segment: 1, Group: 1, Bridge: "vmgbr", Datapath: DatapathXDP},
	{ID: 2, Device: "vnic-1", Segment: 2, Group: 1, Bridge: "vmgbr", Reflect: true, Datapath: DatapathXDP},
}

var testSettings = Settings{
	HeldPerFlow: 3, HeartbeatTimeout: time.Minute, PendingTimeout: time.Second, TCPEstablished: time.Minute,
	TCPTransient: time.Minute, UDPIdle: time.Minute, OtherIdle: time.Minute, EventSample: 100,
}

func newGateway(t *testing.T) *gateway {
	t.Helper()
	gatewayNS(t)
	g := &gateway{t: t, pins: pinsDir(t)}
	for i, p := range testPorts {
		g.vm[i] = newStation(t, p.Device)
	}
	must(t, EnsureBridge("vmgbr", g.pins))
	g.open()
	must(t, g.d.SetSettings(testSettings))
	must(t, g.d.Heartbeat())
	g.attach(testPorts)
	g.decide()
	return g
}

func (g *gateway) open() {
	g.t.Helper()
	d, err := Open(Options{Pins: g.pins})
	must(g.t, err)
	g.d = d
	g.t.Cleanup(func() { must(g.t, d.Close()) })
}

func (g *gateway) attach(ports []Port) []PortState {
	g.t.Helper()
	states, err := g.d.SetPorts(ports)
	must(g.t, err)
	for _, st := range states {
		if !st.Attached {
			g.t.Fatalf("port %s: %v", st.Device, st.Err)
		}
	}
	return states
}

// decide writes the flow's entries.
func (g *gateway) decide() {
	g.t.Helper()
	for i := range g.vm {
		id := uint32(i + 1)
		must(g.t, g.d.SetVM(id, VMEntry{Verdict: forward, Budget: 100, Name: "vm"}))
		must(g.t, g.d.PutMAC(MACKey{MAC: g.vm[i].mac, Group: 1}, MACEntry{VM: id, Segment: id, Port: id}))
	}
	must(g.t, g.d.SetRule(1, Rule{Verdict: forward, Name: "test"}))
	must(g.t, g.d.SetOwner(7, Owner{Verdict: forward, VM: 1, PID: 42, Comm: "client"}))
	var from int
	g.key, from = NewFlowKey(17, endA, endB, 0, 0, 1)
	f := Flow{Created: Now(), Verdict: forward, Rule: 1, Initiator: from}
	f.Dir[from] = FlowDir{SrcMAC: g.vm[0].mac, DstMAC: g.vm[1].mac, InPort: 1, OutPort: 2, VM: 1, Owner: 7, LastSeen: Now()}
	f.Dir[1-from] = FlowDir{SrcMAC: g.vm[1].mac, DstMAC: g.vm[0].mac, InPort: 2, OutPort: 1, VM: 2, LastSeen: Now()}
	must(g.t, g.d.PutFlow(g.key, f))
}

var (
	endA = netip.MustParseAddrPort("10.0.0.1:1000")
	endB = netip.MustParseAddrPort("10.0.0.2:2000")
)

// frame n of the flow, from the first VM to the second or back.
func (g *gateway) frame(n int, back bool) []byte {
	g.t.Helper()
	src, dst, a, b := g.vm[0].mac, g.vm[1].mac, endA, endB
	if back {
		src, dst, a, b = dst, src, b, a
	}
	ip := &layers.IPv4{Version: 4, TTL: 64, Protocol: layers.IPProtocolUDP, SrcIP: a.Addr().AsSlice(), DstIP: b.Addr().AsSlice()}
	udp := &layers.UDP{SrcPort: layers.UDPPort(a.Port()), DstPort: layers.UDPPort(b.Port())}
	must(g.t, udp.SetNetworkLayerForChecksum(ip))
	buf := gopacket.NewSerializeBuffer()
	must(g.t, gopacket.SerializeLayers(buf, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true},
		&layers.Ethernet{SrcMAC: src[:], DstMAC: dst[:], EthernetType: layers.EthernetTypeIPv4},
		ip, udp, gopacket.Payload(binary.BigEndian.AppendUint64([]byte("0123456789abcdefghij"), uint64(n)))))
	return buf.Bytes()
}

// passes sends a frame each way and waits for them.
func (g *gateway) passes(n int) {
	g.t.Helper()
	g.vm[0].ready()
	g.vm[1].ready()
	g.vm[0].send(g.frame(n, false))
	g.vm[1].receive(g.frame(n, false))
	g.vm[1].send(g.frame(n, true))
	g.vm[0].receive(g.frame(n, true))
}

// underTraffic calls f while frames go through, one at a time, before it and
// after it too; each must come out within a second.
func (g *gateway) underTraffic(f func()) {
	g.t.Helper()
	const some = 50
	g.vm[0].ready()
	g.vm[1].ready()
	running, stop, failed := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	go func() {
		failed <- func() error {
			left := some
			for n := 0; left > 0; n++ {
				want := g.frame(n, false)
				if _, err := unix.Write(g.vm[0].sock, want); err != nil {
					return err
				}
				for deadline := time.Now().Add(time.Second); ; {
					got := g.vm[1].next(deadline)
					if bytes.Equal(got, want) {
						break
					}
					if got == nil {
						return fmt.Errorf("frame %d was lost", n)
					}
				}
				if n == some {
					close(running)
				}
				select {
				case <-stop:
					left--
				default:
				}
			}
			return nil
		}()
	}()
	select {
	case <-running:
		f()
		close(stop)
		must(g.t, <-failed)
	case err := <-failed:
		g.t.Fatal(err)
	}
}

func (g *gateway) count(port uint32, reason string) uint64 {
	g.t.Helper()
	counters, err := g.d.Counters()
	must(g.t, err)
	for _, c := range counters {
		if c.PortID == port && c.Reason.String() == reason {
			return c.Packets
		}
	}
	return 0
}

// waitCount waits until a counter has reached at least n.
func (g *gateway) waitCount(port uint32, reason string, n uint64) {
	g.t.Helper()
	deadline := time.Now().Add(5 * time.Second)
	for g.count(port, reason) < n {
		if time.Now().After(deadline) {
			counters, _ := g.d.Counters()
			g.t.Fatalf("port %d counted %d times %s, want %d; counters: %v", port, g.count(port, reason), reason, n, counters)
		}
		time.Sleep(time.Millisecond)
	}
}

// linkIDs returns the ids of the pinned links by pin.
func (g *gateway) linkIDs() map[string]link.ID {
	g.t.Helper()
	ids := map[string]link.ID{}
	pins, err := os.ReadDir(pinDir(g.pins).links())
	must(g.t, err)
	for _, pin := range pins {
		l, err := link.LoadPinnedLink(pinDir(g.pins).links()+"/"+pin.Name(), nil)
		must(g.t, err)
		info, err := l.Info()
		must(g.t, err)
		must(g.t, l.Close())
		ids[pin.Name()] = info.ID
	}
	return ids
}
