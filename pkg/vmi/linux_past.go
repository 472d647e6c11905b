package vmi

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
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

// maxNaming is how many new sockets one look-up of an owner takes along.
const maxNaming = 64

// PastOwner is a process that was seen to hold the socket a query names, some
// time before the answer. It was read then and cannot be verified any more: the
// port may have had another owner since.
type PastOwner struct {
	Process
	Seen time.Time `json:"seen"` // when it was last seen to hold the socket
}

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
	*e = lastHolder{in: t, net: s.net, addr: s.addr}
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

// socketOf tells which socket a file is; ok is false where it is none that
// packets name by a port.
func (k *linuxKernel) socketOf(file uint64, fd uint32) (s heldSocket, ok bool) {
	if !k.isDirect(file) {
		return s, false
	}
	if ops, err := k.member(file, k.FileOps); err != nil || ops != k.sym["socket_file_ops"] {
		return s, false
	}
	socket, err := k.member(file, k.FilePrivate)
	if err != nil || !k.isDirect(socket) {
		return s, false
	}
	sk, err := k.member(socket, k.SocketSock)
	if err != nil || !k.isDirect(sk) {
		return s, false
	}
	s, ok = k.namedSocket(sk, socket)
	s.fd = fd
	return s, ok
}

// namedSocket reads what packets name a socket by.
func (k *linuxKernel) namedSocket(sk, socket uint64) (heldSocket, bool) {
	r, err := k.scratch.record(k, sk, k.sockSpan, k.sockAt...)
	if err != nil {
		return heldSocket{}, false
	}
	defer k.scratch.put(r)
	proto := r.uint(k.SockProtocol)
	switch proto {
	case protoMPTCP:
		proto = protoTCP
	case protoTCP, protoUDP, protoSCTP, protoUDPLite:
	default:
		return heldSocket{}, false
	}
	s := k.sockFrom(r, uint8(proto))
	return heldSocket{
		sk: sk, of: socket, net: s.net, addr: s.local.Addr(),
		key: pastKey{uint8(proto), s.local.Port(), onlyConnected(s.remote)},
	}, (s.family == familyIPv4 || s.family == familyIPv6) && s.socket == socket
}

// onlyConnected is the remote end of a socket that has one.
func onlyConnected(remote netip.AddrPort) netip.AddrPort {
	if remote.Port() == 0 {
		return netip.AddrPort{}
	}
	return remote
}

// name looks up the sockets that are new in a table since it was last named, at
// most limit, and with again all that it had before: they may have been bound or
// connected since.
func (g *linuxGuest) name(key table, limit int, again bool) {
	d := g.fds
	d.mu.Lock()
	t := d.tables[key]
	if t == nil || !again && bytes.Equal(t.raw, t.named) {
		d.mu.Unlock()
		return
	}
	// None of these is changed in place.
	raw, read, before, owner, mm := t.raw, t.read, t.holdings, t.owner, t.mm
	d.mu.Unlock()

	after, changed := before.sockets, false
	if again {
		after, changed = g.k.again(after)
	}
	if !bytes.Equal(raw, before.named) {
		var all bool
		if after, all = g.k.changed(after, before.named, raw, limit); !all {
			return // the next sweep does it
		}
		changed = true
	}
	if leader, err := g.k.task(key.leader); len(after) > 0 && err == nil && leader.id() == t.id && (owner == nil || leader.mm != mm) {
		p := g.process(leader, nil)
		p.Views = []string{}
		owner, mm = &p, leader.mm
	}

	d.mu.Lock()
	defer d.mu.Unlock()
	if d.tables[key] != t || t.at.After(read) {
		return // somebody was faster
	}
	t.owner, t.mm, t.named, t.at = owner, mm, raw, read
	if changed {
		d.past.replace(t, after)
	}
}

// again reads the sockets of a table anew.
func (k *linuxKernel) again(sockets []heldSocket) (out []heldSocket, changed bool) {
	for i, s := range sockets {
		now, ok := k.namedSocket(s.sk, s.of)
		now.fd = s.fd
		if now == s && ok {
			if changed {
				out = append(out, s)
			}
			continue
		}
		if !changed {
			out, changed = slices.Clone(sockets[:i]), true
		}
		if ok {
			out = append(out, now)
		}
	}
	if !changed {
		return sockets, false
	}
	return out, true
}

// changed are the sockets of a table that was before and is raw now; those at
// unchanged descriptors are known. all is false where there are more than limit
// new ones.
func (k *linuxKernel) changed(known []heldSocket, before, raw []byte, limit int) (out []heldSocket, all bool) {
	same := func(at int) bool {
		return at+8 <= len(raw) && at+8 <= len(before) && string(raw[at:at+8]) == string(before[at:at+8])
	}
	for _, s := range known {
		if same(8 * int(s.fd)) {
			out = append(out, s)
		}
	}
	for at := 0; at+8 <= len(raw); at += 8 {
		file := binary.LittleEndian.Uint64(raw[at:])
		if file == 0 || same(at) {
			continue
		}
		s, ok := k.socketOf(file, uint32(at/8))
		if !ok {
			continue
		}
		if limit--; limit < 0 {
			return nil, false
		}
		out = append(out, s)
	}
	return out, true
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

// Sweep reads what has changed in all tables of descriptors.
func (g *linuxGuest) Sweep(ctx context.Context) error {
	g = g.during(ctx)
	_, err := retry(ctx, g.k, func() (struct{}, error) { return struct{}{}, g.sweep(ctx) })
	if err != nil {
		return fmt.Errorf("cannot sweep: %w", err)
	}
	return nil
}

func (g *linuxGuest) sweep(ctx context.Context) error {
	look := *g
	look.k = g.k.oneLook()
	begun := time.Now()
	if err := g.fds.pass(ctx, look.k, begun, true); err != nil {
		return err
	}
	for i, key := range g.fds.all() {
		if i&63 == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		look.name(key, maxPast, true)
	}
	g.fds.mu.Lock()
	defer g.fds.mu.Unlock()
	g.fds.swept = begun
	return nil
}

// onPort are the sockets (struct sock) of a port that processes were seen to
// hold by the last sweep; ok is false if that is older than oldest.
func (d *descriptors) onPort(proto uint8, port uint16, oldest time.Time) (out []uint64, ok bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.swept.Before(oldest) {
		return nil, false
	}
	for _, t := range d.tables {
		for _, s := range t.sockets {
			if s.key.proto == proto && s.key.port == port {
				out = append(out, s.sk)
			}
		}
	}
	return out, true
}

// all are the tables that are remembered.
func (d *descriptors) all() []table {
	d.mu.Lock()
	defer d.mu.Unlock()
	out := make([]table, 0, len(d.tables))
	for key := range d.tables {
		out = append(out, key)
	}
	return out
}
