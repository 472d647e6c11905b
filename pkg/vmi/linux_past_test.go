package vmi

import (
	"context"
	"errors"
	"net/netip"
	"testing"
	"time"
)

func pastSocket(port uint16, remote uint32) heldSocket {
	addr := netip.AddrFrom4([4]byte{10, byte(remote >> 16), byte(remote >> 8), byte(remote)})
	return heldSocket{key: pastKey{protoUDP, port, netip.AddrPortFrom(addr, 53)}, addr: netip.MustParseAddr("10.0.0.1")}
}

func pastTable(pid uint32, at time.Time) *fdTable {
	return &fdTable{holdings: holdings{owner: &Process{PID: pid}, at: at, named: []byte{1}}}
}

func TestPast_ForgetsTheOldestOfTheClosed(t *testing.T) {
	d := newDescriptors()
	now := time.Now()
	dead, alive := pastTable(1, now), pastTable(2, now)
	d.past.held(pastSocket(1, 0), alive)
	const n = maxGone + 1000
	for i := range uint32(n) {
		s := pastSocket(2, i)
		d.past.held(s, dead)
		d.past.ended(s, dead)
	}
	if got := len(d.past.last); got != maxGone+1 {
		t.Errorf("%d sockets are remembered, want %d closed ones and one that is open", got, maxGone)
	}
	for _, c := range []struct {
		port   uint16
		remote uint32
		want   bool
	}{{1, 0, true}, {2, 0, false}, {2, n - maxGone - 1, false}, {2, n - maxGone, true}, {2, n - 1, true}} {
		s := pastSocket(c.port, c.remote)
		got := d.pastOwners(Query{Proto: protoUDP, Local: netip.AddrPortFrom(netip.Addr{}, c.port), Remote: s.key.remote}, 0)
		if (len(got) == 1) != c.want {
			t.Errorf("port %d, remote %d: %+v, want remembered: %v", c.port, c.remote, got, c.want)
		}
	}
}

func TestPast_OpenSocketsAreBounded(t *testing.T) {
	p := newPast()
	table := pastTable(1, time.Now())
	for i := range uint32(maxPast + 10) {
		p.held(pastSocket(1, i), table)
	}
	if len(p.last) != maxPast {
		t.Errorf("%d sockets are remembered, want %d", len(p.last), maxPast)
	}
}

// A port that another process has got is the other's, also when the first one's
// end is noticed later.
func TestPast_ReusedPortIsItsNewHolders(t *testing.T) {
	d := newDescriptors()
	now := time.Now()
	first, second := pastTable(1, now), pastTable(2, now.Add(time.Second))
	s := pastSocket(1, 7)
	d.past.held(s, first)
	d.past.held(s, second)
	d.past.ended(s, first)
	q := Query{Proto: protoUDP, Local: netip.AddrPortFrom(netip.Addr{}, 1), Remote: s.key.remote}
	if got := d.pastOwners(q, 0); len(got) != 1 || got[0].PID != 2 {
		t.Errorf("%+v, want process 2", got)
	}
	d.past.ended(s, second)
	if got := d.pastOwners(q, 0); len(got) != 1 || got[0].PID != 2 || !got[0].Seen.Equal(now.Add(time.Second)) {
		t.Errorf("%+v, want process 2, seen a second later", got)
	}
	q.Local = netip.MustParseAddrPort("192.0.2.1:1")
	if got := d.pastOwners(q, 0); len(got) != 0 {
		t.Errorf("from another address: %+v", got)
	}
}

func TestPartsOf(t *testing.T) {
	fields := []field{{off: 1000, size: 8}, {off: 40, size: 4}, {off: 1100, size: 4}, {off: 2000, size: 16}}
	want := []span{{0, 8}, {960, 1068}, {1960, 1976}}
	got := partsOf(fields)
	if len(got) != len(want) {
		t.Fatalf("%v, want %v", got, want)
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("%v, want %v", got, want)
		}
	}
}

// Who waits for another's pass takes what it found, and waits no longer than
// its own deadline.
func TestDescriptors_APassIsShared(t *testing.T) {
	d := newDescriptors()
	<-d.turn // somebody passes
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := d.pass(ctx, nil, time.Now(), false); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("at the deadline: %v", err)
	}
	asked := time.Now()
	const n = 8
	done := make(chan error, n)
	for range n {
		go func() { done <- d.pass(t.Context(), nil, asked, false) }() // no kernel: a pass of its own would fail
	}
	d.mu.Lock()
	d.passed = time.Now() // it had begun after they asked
	d.mu.Unlock()
	d.turn <- struct{}{}
	for range n {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}
