package vmi

import (
	"bytes"
	"net/netip"
	"slices"
	"time"
)

// Bounds on the memory of who had which port: sockets that are open or were, and
// of these how many are closed.
const (
	maxPast = 1 << 15
	maxGone = 1 << 13
)

// heldSocket is a socket in a table of descriptors.
type heldSocket struct {
	fd   uint32
	sk   uint64 // struct sock
	of   uint64 // struct socket
	net  uint64 // network namespace
	key  pastKey
	addr netip.Addr // local
}

// pastKey is what packets name a socket by.
type pastKey struct {
	proto  uint8
	port   uint16 // local
	remote netip.AddrPort
}

// holdings are the sockets of a table of descriptors.
type holdings struct {
	named   []byte    // the table as it was when they were looked up
	at      time.Time // when that was read
	sockets []heldSocket
	owner   *Process // nil before the first socket
	mm      uint64   // the owner's address space: another one after exec
}

// past remembers who had which sockets. The lock of descriptors guards it.
type past struct {
	last map[pastKey]*lastHolder
	gone []pastKey // of sockets that were closed, oldest at next
	next int
}

// lastHolder is who was last seen with a socket.
type lastHolder struct {
	in    *fdTable // nil: it is closed, and what follows is how it was
	owner *Process
	seen  time.Time
	sk    uint64
	net   uint64
	addr  netip.Addr
}

func newPast() past { return past{last: make(map[pastKey]*lastHolder)} }

// held notes that a table holds a socket now.
func (p *past) held(s heldSocket, t *fdTable) {
	if s.key.port == 0 {
		return
	}
	e := p.last[s.key]
	if e == nil {
		if len(p.last) >= maxPast {
			return
		}
		e = new(lastHolder)
		p.last[s.key] = e
	}
	*e = lastHolder{in: t, sk: s.sk, net: s.net, addr: s.addr}
}

// ended notes that a table does not hold a socket any more.
func (p *past) ended(s heldSocket, t *fdTable) {
	e := p.last[s.key]
	if e == nil || e.in != t {
		return // it was never noted, or is somebody else's now
	}
	e.in, e.owner, e.seen = nil, t.owner, t.seen()
	if len(p.gone) < maxGone {
		p.gone = append(p.gone, s.key)
		return
	}
	if old := p.last[p.gone[p.next]]; old != nil && old.in == nil && p.gone[p.next] != s.key {
		delete(p.last, p.gone[p.next])
	}
	p.gone[p.next] = s.key
	p.next = (p.next + 1) % maxGone
}

// seen is when the sockets of a table were last known to be there.
func (t *fdTable) seen() time.Time {
	if bytes.Equal(t.raw, t.named) {
		return t.read
	}
	return t.at
}

// pastOwners are the processes that were seen to hold the socket that a query
// names, the latest first; in one network namespace, or in all if net is 0.
func (d *descriptors) pastOwners(q Query, net uint64) []PastOwner {
	d.mu.Lock()
	defer d.mu.Unlock()
	var out []PastOwner
	add := func(e *lastHolder) {
		if e == nil {
			return
		}
		owner, seen := e.owner, e.seen
		if e.in != nil {
			owner, seen = e.in.owner, e.in.seen()
		}
		if owner == nil || net != 0 && e.net != net || q.Local.Addr().IsValid() && !sameHost(sock{local: netip.AddrPortFrom(e.addr, 0)}, q.Local.Addr()) {
			return
		}
		out = append(out, PastOwner{*owner, seen})
	}
	key := pastKey{proto: q.Proto, port: q.Local.Port()}
	if q.Remote.Addr().IsValid() {
		add(d.past.last[key])
		key.remote = netip.AddrPortFrom(q.Remote.Addr().Unmap().WithZone(""), q.Remote.Port())
		add(d.past.last[key])
	} else {
		for k, e := range d.past.last {
			if k.proto == key.proto && k.port == key.port {
				add(e)
			}
		}
	}
	slices.SortFunc(out, func(a, b PastOwner) int { return b.Seen.Compare(a.Seen) })
	return out
}

// past is what is remembered of a query's socket. That its namespace is gone is
// no error: its sockets are then, too.
func (g *linuxGuest) past(q Query) []PastOwner {
	var net uint64
	if q.NetNS != 0 {
		nets, err := g.k.namespacesOf(q)
		if err != nil {
			return nil
		}
		net = nets[0].addr
	}
	return g.fds.pastOwners(q, net)
}

// replace notes which sockets a table has now.
func (p *past) replace(t *fdTable, now []heldSocket) {
	is := make(map[pastKey]bool, len(now))
	for _, s := range now {
		is[s.key] = true
	}
	was := make(map[pastKey]bool, len(t.sockets))
	for _, s := range t.sockets {
		if was[s.key] = true; !is[s.key] {
			p.ended(s, t)
		}
	}
	for _, s := range now {
		if !was[s.key] {
			p.held(s, t)
		}
	}
	t.sockets = now
}
