package app

import (
	"bytes"
	"net"
	"net/netip"
	"testing"

	"github.com/vmgate/vmgate/pkg/snort"
)

func noVM(net.HardwareAddr) bool { return false }

func TestCanary_OnlyItsOwnAreTaken(t *testing.T) {
	var tried []byte
	c := newCanary(func(mac net.HardwareAddr) bool {
		tried = append(tried, mac...)
		return len(tried) == 6 // the first is a VM's
	})
	if len(tried) != 18 || bytes.Equal(c.client, tried[:6]) || !bytes.HasPrefix(c.server, canaryOUI[:]) {
		t.Errorf("MACs %v %v after trying % x", c.client, c.server, tried)
	}
	for kind := range canaryKinds {
		c.lanes[inToOut][kind].sent, c.lanes[outToIn][kind].sent = 5, 5
		other := newCanary(noVM)
		change := func(at int) []byte {
			f := c.frame(inToOut, kind, 3)
			f[at] ^= 1
			return f
		}
		frame := c.frame(inToOut, kind, 3)
		refused := map[string][]byte{
			"of another start":    other.frame(inToOut, kind, 3),
			"of the other side":   c.frame(outToIn, kind, 3),
			"of another kind":     c.frame(inToOut, (kind+1)%canaryKinds, 9),
			"never sent":          c.frame(inToOut, kind, 6),
			"number zero":         c.frame(inToOut, kind, 0),
			"to another":          change(0),
			"from another":        change(6),
			"with another nonce":  change(c.numberAt[kind] - 3),
			"with something else": change(22), // the TTL, or zeros
			"cut":                 frame[:len(frame)-1],
			"longer":              append(bytes.Clone(frame), 0),
			"empty":               nil,
		}
		for name, frame := range refused {
			if _, ok := c.came(outToIn, frame); ok {
				t.Errorf("kind %d accepted: one %s", kind, name)
			}
		}
		if got, ok := c.came(outToIn, frame); !ok || got != kind {
			t.Fatalf("kind %d: its own is not accepted, or as %d", kind, got)
		}
		for _, step := range []struct {
			number uint64
			want   bool
		}{{2, false}, {3, false}, {5, true}, {4, false}} {
			if _, got := c.came(outToIn, c.frame(inToOut, kind, step.number)); got != step.want {
				t.Errorf("kind %d: number %d: %t", kind, step.number, got)
			}
		}
		if _, ok := c.came(inToOut, c.frame(outToIn, kind, 1)); !ok {
			t.Error("the directions are counted together")
		}
	}
}

// One that has come to the engine is missing once a whole interval has gone by, and
// only where one has come through before: rules may drop those of a kind.
func TestCanary_Waiting(t *testing.T) {
	c := newCanary(noVM)
	first := c.next(inToOut)[0]
	if c.entered(inToOut, first); c.look() != [directions]bool{} || c.look() != [directions]bool{} {
		t.Error("one is missing of a kind that never came through")
	}
	c.came(outToIn, first)
	second := c.next(inToOut)[0]
	if c.look() != [directions]bool{} {
		t.Error("one is missing that has not come to the engine")
	}
	c.entered(inToOut, second)
	if c.look() != [directions]bool{} {
		t.Error("one is missing that has just come to the engine")
	}
	if c.look() != [directions]bool{inToOut: true} {
		t.Error("one is not missing that has been with the engine for an interval")
	}
	if c.came(outToIn, second); c.look() != [directions]bool{} {
		t.Error("one is missing that has come through")
	}
}

func TestHeartbeats_OnlyTheirOwnAreTaken(t *testing.T) {
	var h heartbeats
	c := newCanary(noVM)
	src := netip.AddrPortFrom(heartbeatAddress, 40000)
	beat := snort.Alert{GID: 1, SID: heartbeatSID, Src: src, SrcMAC: c.client}
	if h.take(beat) {
		t.Error("taken before there was any canary")
	}
	h.macs.Store(&[2]net.HardwareAddr{c.client, c.server})
	if !h.take(beat) || h.count.Load() != 1 {
		t.Error("a heartbeat is not counted")
	}
	byRule := beat
	byRule.SID = 1
	if !h.take(byRule) || h.count.Load() != 1 {
		t.Error("an operator's rule on a canary is evidence, or a heartbeat")
	}
	guest := beat
	guest.SrcMAC = net.HardwareAddr{2, 0, 0, 0, 0, 1}
	other := beat
	other.Src, other.SrcMAC = netip.MustParseAddrPort("10.0.0.1:1"), nil
	for _, a := range []snort.Alert{guest, other} {
		if h.take(a) {
			t.Errorf("taken: %+v", a)
		}
	}
}
