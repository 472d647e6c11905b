package bpf_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/vmgate/vmgate/bpf"
)

func ip(s string) netip.Addr { return netip.MustParseAddr(s) }

const framesOfAWorld = 100

// TestModel_BothProgramsDoAsItSays compares vmgate_ingress and vmgate_tcx with
// the model, on random frames in random worlds: action, bytes, mark and counter
// of each frame, and the flows and pending entries that a world's frames leave.
// It runs for 20 seconds, or VMGATE_MODEL_FRAMES frames, from a random seed.
func TestModel_BothProgramsDoAsItSays(t *testing.T) {
	gateways := modelGateways(t)
	frames, until := 0, time.Now().Add(20*time.Second)
	if testing.Short() {
		until = time.Now().Add(3 * time.Second)
	}
	wanted, err := strconv.Atoi(os.Getenv("VMGATE_MODEL_FRAMES"))
	counted := err == nil
	seed := rand.Uint64()
	for world := seed; counted && frames < wanted || !counted && time.Now().Before(until); world++ {
		compareWorld(t, world, gateways)
		if frames += framesOfAWorld; t.Failed() {
			t.Fatalf("world %d after %d frames", world, frames)
		}
	}
	if frames == 0 {
		t.Error("not one frame was compared")
	}
	t.Logf("%d frames, worlds from seed %d", frames, seed)
}

// FuzzModel looks for a world in which they differ.
func FuzzModel(f *testing.F) {
	gateways := modelGateways(f)
	f.Add(uint64(1))
	f.Fuzz(func(t *testing.T, world uint64) {
		for _, kind := range gateways {
			for i := range kind {
				kind[i] = kind[i].in(t)
			}
		}
		compareWorld(t, world, gateways)
	})
}

// modelGateways loads both programs for each kind of vSwitch.
func modelGateways(t testing.TB) [][]*gateway {
	var all [][]*gateway
	for _, port := range []bpf.VmgatePortConfig{{}, {Answer: 1}, {Proxy: 1}, {Proxy: 1, Answer: 1, Multicast: 1}} {
		port.Id, port.Segment, port.Group, port.Mac = portApp, portApp, group, [6]byte(macGateway)
		var kind []*gateway
		for _, path := range []datapath{pathXDP, pathTCX} {
			g := load(t, path, port, nil)
			g.populate()
			kind = append(kind, g)
		}
		all = append(all, kind)
	}
	return all
}

func compareWorld(t *testing.T, seed uint64, kinds [][]*gateway) {
	t.Helper()
	r := rand.New(rand.NewPCG(seed, 1))
	m := newWorld(r)
	kind := pick(r, 0, 0, 1, 2, 3)
	gateways := kinds[kind]
	m.mac, m.answer, m.proxy = macAdr(macGateway), kind == 1 || kind == 3, kind >= 2
	m.multicast = kind == 3
	fm := newFrameMaker(r, m)
	before := make([]map[reason]bpf.VmgateCounter, len(gateways))
	for i, g := range gateways {
		g.load(m)
		before[i] = g.counters(g.port)
	}
	wanted := map[reason]bpf.VmgateCounter{}
	for range framesOfAWorld {
		frame := fm.next()
		want := m.classify(frame)
		c := wanted[want.reason]
		wanted[want.reason] = bpf.VmgateCounter{Packets: c.Packets + 1, Bytes: c.Bytes + uint64(len(frame))}
		for i, g := range gateways {
			got := g.fire(frame)
			seen, start := g.counter(want.reason), before[i][want.reason]
			if seen.Packets -= start.Packets; seen.Packets != wanted[want.reason].Packets {
				t.Errorf("%s: counted %v, want one more for %s", g.path, diff(before[i], g.counters(g.port)), reasonName(want.reason))
			}
			if err := want.compare(got); err != nil || t.Failed() {
				t.Fatalf("%s, world %d: %v (%s)\nframe % x\nmode %d, ids %d, silent %v", g.path, seed, err, reasonName(want.reason), frame, m.settings.Mode, m.settings.Ids[0].State, m.silent)
			}
		}
	}
	for i, g := range gateways {
		if got := diff(before[i], g.counters(g.port)); fmt.Sprint(got) != fmt.Sprint(wanted) {
			t.Errorf("%s, world %d: counted %v, want %v", g.path, seed, got, wanted)
		}
		g.left(m)
	}
}

func (o modelOutcome) compare(got outcome) error {
	switch {
	case got.action != o.action:
		return fmt.Errorf("action %d, want %d", got.action, o.action)
	case got.mark != o.mark:
		return fmt.Errorf("mark %#x, want %#x", got.mark, o.mark)
	case !bytes.Equal(got.out, o.out):
		return fmt.Errorf("left as\n      % x, want\n      % x", got.out, o.out)
	}
	return nil
}

func reasonName(r reason) string { return fmt.Sprintf("reason %d", r) }

// counter reads one counter of the gateway's port.
func (g *gateway) counter(r reason) (sum bpf.VmgateCounter) {
	g.Helper()
	var perCPU []bpf.VmgateCounter
	if err := g.maps["stats"].Lookup(g.port*uint32(bpf.VmgateReasonREASON_MAX)+uint32(r), &perCPU); err != nil {
		g.Fatal(err)
	}
	for _, c := range perCPU {
		sum.Packets += c.Packets
		sum.Bytes += c.Bytes
	}
	return sum
}

// left compares what a world's frames have left behind.
func (g *gateway) left(m *model) {
	g.Helper()
	for key, want := range m.flows {
		got := g.flow(key)
		for i, d := range got.Dir {
			w := want.f.Dir[i]
			if d.Packets != w.Packets || d.Bytes != w.Bytes || d.TcpFlags != w.TcpFlags {
				g.Errorf("%s: flow %+v dir %d: %d packets, %d bytes, TCP flags %#x; want %d, %d, %#x",
					g.path, key, i, d.Packets, d.Bytes, d.TcpFlags, w.Packets, w.Bytes, w.TcpFlags)
			}
		}
	}
	var key bpf.VmgateFlowKey
	var entry bpf.VmgatePending
	n := 0
	for it := g.maps["pending"].Iterate(); it.Next(&key, &entry); n++ {
		if entry.Punted != m.pending[key] {
			g.Errorf("%s: pending %+v punted %d, want %d", g.path, key, entry.Punted, m.pending[key])
		}
	}
	if n != len(m.pending) {
		g.Errorf("%s: %d pending entries, want %d", g.path, n, len(m.pending))
	}
}
