package punt

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/florianl/go-nfqueue/v2"
	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"github.com/vishvananda/netlink"
)

const (
	soon  = 5 * time.Second        // what must happen happens within
	quiet = 200 * time.Millisecond // what must not happen has not happened after
)

// holding opens the queues, runs them, and hands the packets of interest to the
// test; others (the hosts' multicast reports) are dropped.
func (l *lab) holding(match func(*Packet) bool) (*Queues, <-chan *Packet) {
	l.t.Helper()
	q, err := Open(l.config())
	check(l.t, err)
	l.t.Cleanup(func() { check(l.t, q.Close()) })
	held, _ := l.run(q, match)
	return q, held
}

// run runs the queues until the test ends or stop is called, which waits.
func (l *lab) run(q *Queues, match func(*Packet) bool) (held chan *Packet, stop func()) {
	held = make(chan *Packet, 1024)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		done <- q.Run(ctx, func(p *Packet) {
			if !match(p) {
				_ = p.Drop()
				return
			}
			held <- p
		})
	}()
	stopped := false
	stop = func() {
		cancel()
		if stopped {
			return
		}
		stopped = true
		if err := <-done; err != nil {
			l.t.Errorf("Run: %v", err)
		}
	}
	l.t.Cleanup(stop)
	return held, stop
}

func toPort(port uint16) func(*Packet) bool {
	return func(p *Packet) bool { return p.Dst.Port() == port }
}

func (l *lab) next(held <-chan *Packet) *Packet {
	l.t.Helper()
	select {
	case p := <-held:
		return p
	case <-time.After(soon):
		l.t.Fatal("no packet was held")
		return nil
	}
}

// settled waits until nothing is held and returns the counters, which must add up.
func (l *lab) settled(q *Queues) Stats {
	l.t.Helper()
	for deadline := time.Now().Add(soon); ; time.Sleep(time.Millisecond) {
		s := q.Stats()
		if s.Depth == 0 && s.Received == s.Released+s.Dropped+s.Malformed {
			return s
		}
		if time.Now().After(deadline) {
			l.t.Fatalf("the counters do not add up: %+v", s)
		}
	}
}

func TestRelease_HeldSYNConnectsAndBearsTheMark(t *testing.T) {
	l := newLab(t)
	l.guardEgress(markForward) // only what bears this mark arrives
	_, held := l.holding(func(p *Packet) bool { return p.Proto == 6 })
	l.markAtIngress(markPunt)
	for _, addrs := range [][2]netip.Addr{{l.a.v4, l.b.v4}, {l.a.v6, l.b.v6}} {
		t.Run(addrs[0].String(), func(t *testing.T) {
			var listener net.Listener
			check(t, l.b.do(func() (err error) {
				listener, err = net.Listen("tcp", netip.AddrPortFrom(addrs[1], 8080).String())
				return err
			}))
			defer listener.Close()
			connected := make(chan error, 1)
			go func() {
				connected <- l.a.do(func() error {
					conn, err := net.DialTimeout("tcp", listener.Addr().String(), soon)
					if err != nil {
						return err
					}
					return conn.Close()
				})
			}()
			syn := l.next(held)
			for syn.Src.Addr().Is4() != addrs[0].Is4() { // the end of the connection before
				check(t, syn.Release(markForward))
				syn = l.next(held)
			}
			if syn.TCPFlags != 2 || syn.Src.Addr() != addrs[0] || syn.Dst != netip.AddrPortFrom(addrs[1], 8080) ||
				syn.VLAN != 0 || syn.Len < 40 || time.Since(syn.Received) > soon {
				t.Errorf("held %+v, want the SYN from %v to %v", syn, addrs[0], addrs[1])
			}
			select {
			case err := <-connected:
				t.Fatalf("connected (%v) while the SYN was held", err)
			case <-time.After(quiet):
			}
			check(t, syn.Release(markForward))
			for {
				select {
				case err := <-connected:
					check(t, err)
					return
				case p := <-held: // the rest of the handshake
					check(t, p.Release(markForward))
				}
			}
		})
	}
}

func TestRelease_OnlyTheFirstWordCounts(t *testing.T) {
	l := newLab(t)
	q, held := l.holding(toPort(53))
	l.markAtIngress(markPunt)
	from, to := l.raw(l.a), l.raw(l.b)
	from.send(udp4(l.a, l.b, 1000, 53, []byte("one")))
	p := l.next(held)
	check(t, p.Release(markForward))
	check(t, p.Release(markForward))
	check(t, p.Drop())
	if f, _ := to.recv(soon, isUDP(53)); f == nil {
		t.Error("the released packet did not arrive")
	}
	if s := l.settled(q); s.Released != 1 {
		t.Errorf("counted %+v, want one release", s)
	}
}

func TestDrop_EndsThePacket(t *testing.T) {
	l := newLab(t)
	q, held := l.holding(toPort(53))
	l.markAtIngress(markPunt)
	from, to := l.raw(l.a), l.raw(l.b)
	from.send(udp4(l.a, l.b, 1000, 53, []byte("one")))
	check(t, l.next(held).Drop())
	if f, _ := to.recv(quiet, isUDP(53)); f != nil {
		t.Error("the dropped packet arrived")
	}
	if s := l.settled(q); s.Dropped == 0 || s.Released != 0 {
		t.Errorf("counted %+v, want a drop", s)
	}
}

func TestRelease_KeepsTheOrder(t *testing.T) {
	l := newLab(t)
	_, held := l.holding(toPort(53))
	l.markAtIngress(markPunt)
	from, to := l.raw(l.a), l.raw(l.b)
	const n = 200
	for i := range n {
		from.send(udp4(l.a, l.b, 1000, 53, binary.BigEndian.AppendUint16(nil, uint16(i))))
	}
	var packets []*Packet
	for range n {
		packets = append(packets, l.next(held))
	}
	for _, p := range packets {
		check(t, p.Release(markForward))
	}
	for i := range n {
		f, _ := to.recv(soon, isUDP(53))
		if f == nil {
			t.Fatalf("packet %d did not arrive", i)
		}
		if got := binary.BigEndian.Uint16(udpPayload(f, 53)); got != uint16(i) {
			t.Fatalf("packet %d arrived in the place of %d", got, i)
		}
	}
}

func TestHold_TaggedFrameKeepsItsTag(t *testing.T) {
	l := newLab(t)
	_, held := l.holding(toPort(53))
	l.markAtIngress(markPunt | 77)
	from, to := l.raw(l.a), l.raw(l.b)
	from.send(tagged(udp4(l.a, l.b, 1000, 53, []byte("tagged")), 77))
	p := l.next(held)
	if p.VLAN != 77 || p.Src != netip.AddrPortFrom(l.a.v4, 1000) {
		t.Errorf("held %+v, want VLAN 77 from %v", p, l.a.v4)
	}
	if f, _ := to.recv(quiet, isUDP(53)); f != nil {
		t.Fatal("the tagged frame passed while it was held")
	}
	check(t, p.Release(markForward))
	f, vlan := to.recv(soon, isUDP(53))
	if f == nil || vlan != 77 {
		t.Errorf("arrived %x with VLAN %d, want VLAN 77", f, vlan)
	}
}

// fragmented splits an Ethernet frame's IPv4 payload after cut bytes.
func fragmented(l *lab, id uint16, cut int, datagram []byte) [2][]byte {
	head := ipv4(l.a.v4, l.b.v4, layers.IPProtocolUDP)
	head.Id, head.Flags = id, layers.IPv4MoreFragments
	tail := ipv4(l.a.v4, l.b.v4, layers.IPProtocolUDP)
	tail.Id, tail.FragOffset = id, uint16(cut/8)
	eth := ethernet(l.a, l.b, layers.EthernetTypeIPv4)
	return [2][]byte{
		frame(eth, head, gopacket.Payload(datagram[:cut])),
		frame(eth, tail, gopacket.Payload(datagram[cut:])),
	}
}

func TestHold_FragmentsAreOfTheirHeadsFlow(t *testing.T) {
	l := newLab(t)
	q, held := l.holding(toPort(53))
	l.markAtIngress(markPunt)
	from, to := l.raw(l.a), l.raw(l.b)
	datagram := udp4(l.a, l.b, 1000, 53, []byte(strings.Repeat("x", 160)))[14+20:]
	pair := fragmented(l, 7, 88, datagram)
	from.send(pair[0])
	from.send(pair[1])
	for i := range 2 {
		p := l.next(held)
		if p.Src.Port() != 1000 || p.Proto != 17 {
			t.Errorf("fragment %d is held as of %+v, want the head's ports", i, p)
		}
		check(t, p.Release(markForward))
	}
	for i := range pair {
		got, _ := to.recv(soon, func(f []byte) bool { return len(f) > 20 && f[12] == 8 && f[13] == 0 })
		if string(got) != string(pair[i]) {
			t.Errorf("fragment %d arrived as %x, want unchanged %x", i, got, pair[i])
		}
	}

	before := q.Stats().Malformed
	from.send(fragmented(l, 8, 88, datagram)[1]) // without its head
	for deadline := time.Now().Add(soon); q.Stats().Malformed == before; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("a fragment without its head was not counted as malformed")
		}
	}
}

func TestUnmarkedTraffic_IsNotTouched(t *testing.T) {
	l := newLab(t)
	q, _ := l.holding(func(*Packet) bool { return true })
	l.markAtIngress(0x12345678)
	from, to := l.raw(l.a), l.raw(l.b)
	from.send(udp4(l.a, l.b, 1000, 53, []byte("hello")))
	if f, _ := to.recv(soon, isUDP(53)); f == nil {
		t.Error("a packet without the punt mark did not pass")
	}
	if s := q.Stats(); s.Received != 0 {
		t.Errorf("counted %+v, want nothing held", s)
	}
}

func TestStop_FailsClosedUntilTheRulesAreRemoved(t *testing.T) {
	l := newLab(t)
	q, err := Open(l.config())
	check(t, err)
	held, stop := l.run(q, toPort(53))
	l.markAtIngress(markPunt)
	from, to := l.raw(l.a), l.raw(l.b)
	send := func(text string) { from.send(udp4(l.a, l.b, 1000, 53, []byte(text))) }

	send("held")
	p := l.next(held)
	stop()
	send("no reader")
	if err := p.Release(markForward); !errors.Is(err, ErrClosed) {
		t.Errorf("Release after the queue's end = %v, want ErrClosed", err)
	}
	if f, _ := to.recv(quiet, isUDP(53)); f != nil {
		t.Fatalf("%q passed without a reader", udpPayload(f, 53))
	}
	if n := len(l.tables()); n != 2 {
		t.Errorf("%d tables while closed, want 2", n)
	}
	check(t, q.Close())
	check(t, q.Close())
	if left := l.tables(); len(left) != 0 {
		t.Errorf("Close left the tables %v", left)
	}
	send("no rules")
	if f, _ := to.recv(soon, isUDP(53)); f == nil || string(udpPayload(f, 53)) != "no rules" {
		t.Errorf("without rules %q arrived", udpPayload(f, 53))
	}
}

// A killed daemon leaves its rules behind: the next one takes them over while
// traffic runs, and nothing passes meanwhile.
func TestOpen_TakesOverUnderTraffic(t *testing.T) {
	l := newLab(t)
	first, err := Open(l.config())
	check(t, err)
	defer first.Close()
	_, stop := l.run(first, toPort(53))
	l.markAtIngress(markPunt)
	from, to := l.raw(l.a), l.raw(l.b)
	stop() // as the kernel does with a killed daemon: queues gone, rules there

	sending, done := make(chan struct{}), make(chan struct{})
	f := udp4(l.a, l.b, 1000, 53, []byte("flood"))
	go func() {
		defer close(done)
		for {
			select {
			case <-sending:
				return
			default:
				from.send(f)
			}
		}
	}()
	for range 5 {
		q, err := Open(l.config())
		if err != nil {
			t.Errorf("Open under traffic: %v", err)
			break
		}
		held, stop := l.run(q, toPort(53))
		l.next(held)
		go func() { // Run must not be blocked by a full channel
			for range held {
			}
		}()
		stop()
		close(held)
	}
	close(sending)
	<-done
	if f, _ := to.recv(quiet, isUDP(53)); f != nil {
		t.Error("a punted packet passed during a restart")
	}
	if n := len(l.tables()); n != 2 {
		t.Errorf("%d tables after restarts, want 2", n)
	}
}

func TestOpen_NamesWhoHoldsTheQueue(t *testing.T) {
	l := newLab(t)
	first, err := Open(l.config())
	check(t, err)
	defer first.Close()
	cfg := l.config()
	cfg.Table, cfg.Base = "vmgate-test-2", cfg.Base-1
	second, err := Open(cfg)
	if err == nil {
		_ = second.Close()
		t.Fatal("a queue was bound twice")
	}
	for _, want := range []string{"queue 5820", fmt.Sprintf("process %d (punt.test)", os.Getpid()), "queue-base"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("error %q does not say %q", err, want)
		}
	}
	tables, err := l.nft.ListTables()
	check(t, err)
	for _, table := range tables {
		if table.Name == "vmgate-test-2" {
			t.Error("the failed Open left a table")
		}
	}
}

func TestOpen_RefusesImpossibleQueues(t *testing.T) {
	for _, cfg := range []Config{
		{Base: 5820, Queues: 0, Mark: markPunt, MarkMask: markPuntMask},
		{Base: 65535, Queues: 2, Mark: markPunt, MarkMask: markPuntMask},
		{Base: -1, Queues: 1, Mark: markPunt, MarkMask: markPuntMask},
		{Base: 1, Queues: 1, Mark: markPunt},
		{Base: 1, Queues: 1, Mark: markPunt, MarkMask: 0xf},
	} {
		if q, err := Open(cfg); err == nil {
			_ = q.Close()
			t.Errorf("Open(%+v) succeeded", cfg)
		}
	}
}

// Connection tracking would see half of each flow, and put fragments together.
func TestMarkedTraffic_IsNeitherTrackedNorReassembled(t *testing.T) {
	l := newLab(t)
	l.trackConnections()
	_, held := l.holding(toPort(53))
	from, to := l.raw(l.a), l.raw(l.b)
	l.markAtIngress(markPunt)
	datagram := udp4(l.a, l.b, 1000, 53, []byte(strings.Repeat("x", 160)))[14+20:]
	for _, f := range fragmented(l, 7, 88, datagram) {
		from.send(f)
		check(t, l.next(held).Release(markForward))
		got, _ := to.recv(soon, func(f []byte) bool { return len(f) > 20 && f[12] == 8 && f[13] == 0 })
		if string(got) != string(f) {
			t.Errorf("a fragment arrived as %x, want unchanged %x", got, f)
		}
	}
	if l.tracked() {
		t.Error("the marked traffic is tracked")
	}
	l.markAtIngress(0x12345678)
	from.send(udp4(l.a, l.b, 1000, 53, nil))
	if f, _ := to.recv(soon, isUDP(53)); f == nil || !l.tracked() {
		t.Error("traffic of others is not tracked: the test shows nothing")
	}
}

func TestFullQueue_DropsAndCounts(t *testing.T) {
	l := newLab(t)
	cfg := l.config()
	cfg.queueLength, cfg.Queues = 8, 1
	q, err := Open(cfg)
	check(t, err)
	defer func() { check(t, q.Close()) }()
	held, stop := l.run(q, toPort(53))
	defer stop()
	l.markAtIngress(markPunt)
	from, to := l.raw(l.a), l.raw(l.b)
	for range 20 {
		from.send(udp4(l.a, l.b, 1000, 53, []byte("x")))
	}
	var packets []*Packet
	for len(packets) == 0 || q.Stats().QueueDropped < 12 || len(held) > 0 {
		packets = append(packets, l.next(held))
	}
	if f, _ := to.recv(quiet, isUDP(53)); f != nil {
		t.Fatal("a packet passed a full queue")
	}
	for _, p := range packets {
		check(t, p.Release(markForward))
		if f, _ := to.recv(soon, isUDP(53)); f == nil {
			t.Fatal("a held packet did not arrive")
		}
	}
	from.send(udp4(l.a, l.b, 1000, 53, []byte("after")))
	check(t, l.next(held).Release(markForward))
	if f, _ := to.recv(soon, isUDP(53)); f == nil {
		t.Error("the queue does not recover")
	}
}

// The kernel lets go of packets whose device goes away; the queue must live on.
func TestRelease_AfterTheDeviceHasGone(t *testing.T) {
	l := newLab(t)
	q, held := l.holding(toPort(53))
	l.markAtIngress(markPunt)
	send := func() { l.raw(l.a).send(udp4(l.a, l.b, 1000, 53, []byte("x"))) }
	send()
	p := l.next(held)
	gw, err := netlink.NewHandleAt(l.gateway)
	check(t, err)
	defer gw.Close()
	va, err := gw.LinkByName("va")
	check(t, err)
	check(t, gw.LinkSetDown(va))
	check(t, p.Release(markForward)) // the kernel answers later
	check(t, gw.LinkSetUp(va))
	for deadline := time.Now().Add(soon); q.Stats().Refused == 0; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the kernel's refusal was not counted")
		}
	}
	send()
	check(t, l.next(held).Release(markForward))
}

func TestDecode_RefusesPacketsThatOtherRulesQueued(t *testing.T) {
	q := &queue{owner: &Queues{cfg: Config{Mark: markPunt, MarkMask: markPuntMask}}, decoder: newDecoder()}
	payload := over(ipv4(addr4[0], addr4[1], 17), &layers.UDP{SrcPort: 1000, DstPort: 53}, 0)
	for _, c := range []struct {
		mark *uint32
		want error
	}{{nil, errStranger}, {new(uint32(0)), errStranger}, {new(uint32(markForward)), errStranger}, {new(uint32(markPunt | 5)), nil}} {
		if err := q.decode(new(Packet), nfqueue.Attribute{Mark: c.mark, Payload: &payload}); !errors.Is(err, c.want) {
			t.Errorf("decode = %v, want %v", err, c.want)
		}
	}
	if err := q.decode(new(Packet), nfqueue.Attribute{Mark: new(uint32(markPunt))}); !errors.Is(err, errTruncated) {
		t.Errorf("without a payload: %v, want %v", err, errTruncated)
	}
}

// How fast it went is reported, not asserted: the machine may be busy. Asserted is
// that every packet that reached the bridge is accounted for.
func TestFlood_EveryPacketIsAccountedFor(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a second at full speed")
	}
	l := newLab(t)
	q, err := Open(l.config())
	check(t, err)
	defer func() { check(t, q.Close()) }()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	var ofFlood atomic.Uint64
	go func() {
		done <- q.Run(ctx, func(p *Packet) {
			if p.Dst.Port() == 53 {
				ofFlood.Add(1)
			}
			_ = p.Release(markForward)
		})
	}()
	defer func() { cancel(); check(t, <-done) }()

	l.markAtIngress(markPunt)
	from, to := l.raw(l.a), l.raw(l.b)
	const rate, total = 20000, 20000
	f := udp4(l.a, l.b, 1000, 53, []byte("flood"))
	start := time.Now()
	for i := range total {
		if ahead := time.Duration(i)*time.Second/rate - time.Since(start); ahead > time.Millisecond {
			time.Sleep(ahead)
		}
		from.send(f)
	}
	took := time.Since(start)
	s := l.settled(q)
	reached := l.marked() // and a few multicast reports
	lost := s.QueueDropped + s.UserDropped
	arrived := uint64(0)
	for f, _ := to.recv(quiet, isUDP(53)); f != nil; f, _ = to.recv(quiet, isUDP(53)) {
		arrived++
	}
	t.Logf("sent %d packets in %v: %d reached the bridge, %d were held, %d arrived; %+v", total, took, reached, ofFlood.Load(), arrived, s)
	const reports = 20
	if ofFlood.Load()+lost > reached || ofFlood.Load()+lost+reports < reached {
		t.Errorf("%d packets reached the bridge, %d were held and %d lost", reached, ofFlood.Load(), lost)
	}
	if arrived > ofFlood.Load() || arrived == 0 {
		t.Errorf("%d packets arrived of %d that were released", arrived, ofFlood.Load())
	}
	if s.Refused != 0 {
		t.Errorf("the kernel refused %d verdicts", s.Refused)
	}
}
