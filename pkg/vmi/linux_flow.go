package vmi

import (
	"context"
	"net/netip"
	"slices"
)

// A server's port is shared by all its connections: to find one among thousands
// takes milliseconds. Where its socket is once it was found, is remembered.

// maxFlows bounds the connections that are remembered.
const maxFlows = 1 << 13

// flowKey is a query with both ends.
type flowKey struct {
	proto         uint8
	local, remote netip.AddrPort
}

func flowOf(q Query) (key flowKey, ok bool) {
	plain := func(a netip.AddrPort) netip.AddrPort {
		return netip.AddrPortFrom(a.Addr().Unmap().WithZone(""), a.Port())
	}
	ok = (q.Proto == protoTCP || q.Proto == protoUDP) && q.Local.Addr().IsValid() && q.Remote.Addr().IsValid() && q.Remote.Port() != 0
	return flowKey{q.Proto, plain(q.Local), plain(q.Remote)}, ok
}

// knownFlow answers a query by the socket that it was answered by before, or that
// a sweep has seen, if that still has these ends.
func (g *linuxGuest) knownFlow(ctx context.Context, q Query, nets []netns) (answer Answer, found bool, err error) {
	key, ok := flowOf(q)
	if !ok {
		return answer, false, nil
	}
	g.mu.Lock()
	sk, known := g.flows[key]
	g.mu.Unlock()
	if !known {
		if sk, known = g.fds.socket(key); !known {
			return answer, false, nil
		}
	}
	s, err := g.k.sock(sk, q.Proto)
	if err != nil || s.mini() || s.socket == 0 || s.local != key.local || s.remote != key.remote || !inNets(nets, s.net) {
		return answer, false, nil // it has ended; the tables tell
	}
	if answer, err = g.holdersOf(ctx, []sock{s}); err != nil || len(answer.Owners) == 0 {
		return answer, false, err
	}
	answer.State, answer.Note = StateHeld, StateHeld.note(true)
	return answer, true, nil
}

func inNets(nets []netns, net uint64) bool {
	return slices.ContainsFunc(nets, func(n netns) bool { return n.addr == net })
}

// rememberFlow notes which socket a query with both ends was answered by.
func (g *linuxGuest) rememberFlow(q Query, sk uint64) {
	key, ok := flowOf(q)
	if !ok {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.flows) >= maxFlows {
		clear(g.flows) // what is still asked for comes back at the price of one look
	}
	g.flows[key] = sk
}

// socket is the one (struct sock) that the last sweep saw with these ends.
func (d *descriptors) socket(key flowKey) (sk uint64, ok bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	e := d.past.last[pastKey{key.proto, key.local.Port(), key.remote}]
	if e == nil || e.in == nil {
		return 0, false
	}
	return e.sk, true
}
