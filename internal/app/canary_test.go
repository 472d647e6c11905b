package app

import (
	"bytes"
	"log/slog"
	"net"
	"testing"
)

func TestCanary_OnlyItsOwnAreTaken(t *testing.T) {
	var tried []byte
	c := newCanary("in", "out", func(mac net.HardwareAddr) bool {
		tried = append(tried, mac...)
		return len(tried) == 6 // the first is a VM's
	}, slog.New(slog.DiscardHandler))
	if len(tried) != 18 || bytes.Equal(c.header[:6], tried[:6]) || c.header[0]&3 != 2 || c.header[6]&3 != 2 {
		t.Errorf("MACs % x after trying % x", c.header[:12], tried)
	}
	c.sent = [directions]uint64{5, 5}
	other := newCanary("in", "out", func(net.HardwareAddr) bool { return false }, c.log)
	change := func(at int) []byte {
		f := c.frame(inToOut, 3)
		f[at] ^= 1
		return f
	}
	refused := map[string][]byte{
		"of another start":    other.frame(inToOut, 3),
		"of the other side":   c.frame(outToIn, 3),
		"never sent":          c.frame(inToOut, 6),
		"number zero":         c.frame(inToOut, 0),
		"to another":          change(0),
		"from another":        change(6),
		"with another nonce":  change(14),
		"with something else": change(59),
		"cut":                 c.frame(inToOut, 3)[:59],
		"longer":              append(c.frame(inToOut, 3), 0),
		"empty":               nil,
	}
	for name, frame := range refused {
		if c.accept(inToOut, frame) {
			t.Errorf("accepted: one %s", name)
		}
	}
	if !c.accept(inToOut, c.frame(inToOut, 3)) {
		t.Fatal("its own is not accepted")
	}
	for number, want := range map[uint64]bool{2: false, 3: false, 5: true} {
		if got := c.accept(inToOut, c.frame(inToOut, number)); got != want {
			t.Errorf("number %d after 3: %t", number, got)
		}
	}
	if !c.accept(outToIn, c.frame(outToIn, 1)) {
		t.Error("the directions are counted together")
	}
}
