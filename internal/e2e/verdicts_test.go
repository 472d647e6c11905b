package e2e_test

import (
	"bytes"
	"fmt"
	"testing"

	"github.com/vmgate/vmgate/internal/lab"
)

// taggings are the ways a frame can come; flags say what the slow path can do.
var taggings = []struct {
	name      string
	tags      []uint16
	undecided bool // bridge netfilter cannot hold it: decided for the next try
}{
	{"untagged", nil, false},
	{"tagged", []uint16{5}, false},
	{"double-tagged", []uint16{5, 6}, true},
}

// TestVerdicts_EachFamilyAndTagging: frames of all kinds, from the first of a
// flow on, compared byte by byte where they come out.
func TestVerdicts_EachFamilyAndTagging(t *testing.T) {
	eachEngine(t, testVerdicts_EachFamilyAndTagging)
}

func testVerdicts_EachFamilyAndTagging(t *testing.T, s setup) {
	s.VLANs, s.IDS = `[0, 5, "5.6"]`, harmlessRule
	g := namespaced(t, s)
	for _, port := range []int{22, 80, 443} {
		absorb(t, g.Web1, port)
	}
	for _, tagging := range taggings {
		for _, six := range []bool{false, true} {
			kind := func(port int) probe {
				p := newProbe(g.App1, g.Web1, port)
				p.tags, p.six = tagging.tags, six
				absorb(t, g.App1, p.source)
				return p
			}
			name := fmt.Sprintf("%s/IPv4", tagging.name)
			if six {
				name = fmt.Sprintf("%s/IPv6", tagging.name)
			}
			t.Run(name+"/allow", func(t *testing.T) { g.checkAllow(t, kind(80), tagging.undecided) })
			t.Run(name+"/deny", func(t *testing.T) { g.checkDeny(t, kind(22)) })
			t.Run(name+"/check", func(t *testing.T) { g.checkCheck(t, kind(443), tagging.undecided) })
		}
	}
}

// first sends the first frame of a flow and awaits the decision. Where it could
// not be held, it is lost, and the next one is as good.
func (g *gateway) first(t *testing.T, p probe, lost bool) (probe, []byte) {
	t.Helper()
	mark := g.events.mark()
	frame := p.send(t)
	e := g.events.wait(t, mark, "the decision on "+p.String(), decisionOn(p.source))
	if e.SrcVM != p.from.Name || e.DestVM != p.to.Name || int(e.DestPort) != p.port {
		t.Errorf("the decision is on %+v", e)
	}
	if lost {
		p = p.again()
		frame = p.send(t)
	}
	return p, frame
}

func (g *gateway) checkAllow(t *testing.T, p probe, lost bool) {
	before := g.counts()
	p, frame := g.first(t, p, lost)
	g.arrives(t, g.webWire, p, frame)
	wantHeld := uint64(1)
	if lost {
		wantHeld = 0
	}
	if n := g.since(before, "apps/punt"); n != wantHeld {
		t.Errorf("%d packets went to the daemon, want %d", n, wantHeld)
	}
	// From here on nothing but XDP touches it, in either direction.
	before = g.counts()
	for range 5 {
		for _, to := range []struct {
			wire *capture
			p    probe
		}{{g.webWire, p.again()}, {g.appsWire, p.answer()}} {
			g.arrives(t, to.wire, to.p, to.p.send(t))
		}
	}
	for kind, want := range (counts{"apps/forward": 5, "web/forward": 5, "apps/punt": 0, "web/punt": 0, "web/egress": 0, "apps/egress": 0}) {
		if n := g.since(before, kind); n != want {
			t.Errorf("%s: %d, want %d", kind, n, want)
		}
	}
}

func (g *gateway) checkDeny(t *testing.T, p probe) {
	mark, before := g.events.mark(), g.counts()
	p.send(t)
	e := g.events.wait(t, mark, "the decision", decisionOn(p.source))
	if e.Verdict != "drop" || e.Rule != "no-ssh-udp" || e.SrcVM != "app1" || e.DestVM != "web1" {
		t.Errorf("decided %s by rule %q on %s to %s", e.Verdict, e.Rule, e.SrcVM, e.DestVM)
	}
	later := p.again()
	g.awaitDropped(t, later, before, 3)
	g.fence(t, g.webWire, g.App1)
	if got := g.webWire.seen(carries(p.payload)); len(got) > 0 {
		t.Error("the first packet arrived")
	}
}

// awaitDropped sends more of a denied flow and wants XDP to count each.
func (g *gateway) awaitDropped(t *testing.T, p probe, before counts, n uint64) {
	t.Helper()
	before["apps/drop-verdict"] = g.counts()["apps/drop-verdict"]
	for range n {
		p = p.again()
		p.send(t)
	}
	g.awaitCount(t, before, "apps/drop-verdict", n)
	if got := g.webWire.seen(carries(p.payload)); len(got) > 0 {
		t.Error("a later packet arrived")
	}
}

func (g *gateway) checkCheck(t *testing.T, p probe, lost bool) {
	before := g.counts()
	p, frame := g.first(t, p, lost)
	g.arrives(t, g.webWire, p, frame)
	if n := g.since(before, "web/egress-check"); !lost && n != 1 {
		t.Errorf("%d held packets were turned off to the IDS, want 1", n)
	}
	for range 5 {
		for _, to := range []struct {
			wire *capture
			p    probe
		}{{g.webWire, p.again()}, {g.appsWire, p.answer()}} {
			g.arrives(t, to.wire, to.p, to.p.send(t))
		}
	}
	for kind, want := range (counts{"ids-out/ids-return": 6, "ids-in/ids-return": 5, "apps/forward": 0, "web/forward": 0}) {
		if n := g.since(before, kind); n != want {
			t.Errorf("%s: %d, want %d", kind, n, want)
		}
	}
}

// arrives wants a frame to come out once, and as it went in.
func (g *gateway) arrives(t *testing.T, wire *capture, p probe, frame []byte) {
	t.Helper()
	got := wire.wait(t, p.String(), carries(p.payload))
	if !bytes.Equal(got, frame) {
		t.Errorf("%s changed:\n sent %x\n came %x", p, frame, got)
	}
	if n := len(wire.seen(carries(p.payload))); n != 1 {
		t.Errorf("%s came %d times", p, n)
	}
}

// stragglers are the last packets of the connection before, and control traffic,
// that may be counted during the next one. The connections have a hundred packets
// and more.
const stragglers = 8

// TestVerdicts_RealConnections: the same with the kernel's own TCP, whose first
// packet is held and needs no second try.
func TestVerdicts_RealConnections(t *testing.T) {
	g := namespaced(t, setup{IDS: harmlessRule})
	for _, port := range []int{22, 80, 443} {
		serve(t, g.Web1, port)
	}
	serve(t, g.App2, 7000)
	for _, c := range []struct {
		name string
		to   *lab.Host
		port int
		ok   bool
		want []string // counters that grow
		zero []string // and that do not
	}{
		{"allow", g.Web1, 80, true, []string{"apps/forward", "web/forward"}, []string{"apps/check", "web/check"}},
		{"deny", g.Web1, 22, false, []string{"apps/drop-verdict"}, []string{"web/egress", "apps/forward"}},
		{"check", g.Web1, 443, true, []string{"apps/check", "web/check", "ids-in/ids-return", "ids-out/ids-return"}, []string{"apps/forward", "web/forward"}},
		{"same-vSwitch", g.App2, 7000, true, []string{"apps/forward"}, []string{"web/forward", "web/egress"}},
	} {
		for _, six := range []bool{false, true} {
			name := c.name + "/IPv4"
			if six {
				name = c.name + "/IPv6"
			}
			t.Run(name, func(t *testing.T) {
				before := g.counts()
				retransmitted, err := echo(g.App1, address(c.to, c.port, six), 200_000)
				if c.ok && (err != nil || retransmitted != 0) {
					t.Errorf("failed with %d retransmissions: %v", retransmitted, err)
				}
				if !c.ok && err == nil {
					t.Error("it came about")
				}
				now := g.counts()
				for _, kind := range c.want {
					if now[kind] == before[kind] {
						t.Errorf("%s did not grow", kind)
					}
				}
				for _, kind := range c.zero {
					if n := now[kind] - before[kind]; n > stragglers {
						t.Errorf("%s grew by %d", kind, n)
					}
				}
			})
		}
	}
}
