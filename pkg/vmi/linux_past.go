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
// names, the latest first.
func (d *descriptors) pastOwners(q Query) []PastOwner {
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
		if owner == nil || q.Local.Addr().IsValid() && !sameHost(sock{local: netip.AddrPortFrom(e.addr, 0)}, q.Local.Addr()) {
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

// stillSocket is socketOf for a file that was that socket before.
func (k *linuxKernel) stillSocket(file uint64, s heldSocket) (heldSocket, bool) {
	if socket, err := k.member(file, k.FilePrivate); err == nil && socket == s.of {
		if now, ok := k.namedSocket(s.sk, s.of); ok {
			now.fd = s.fd
			return now, true
		}
	}
	return k.socketOf(file, s.fd)
}

// namedSocket reads what packets name a socket by.
func (k *linuxKernel) namedSocket(sk, socket uint64) (heldSocket, bool) {
	r, err := k.scratch.record(k, sk, k.sockSpan)
	if err != nil {
		return heldSocket{}, false
	}
	defer k.scratch.put(r)
	proto := r.uint(k.SockProtocol)
	switch proto {
	case protoMPTCP:
		proto = protoTCP
	case protoTCP, protoUDP:
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
	if t == nil || !again && string(t.raw) == string(t.named) {
		d.mu.Unlock()
		return
	}
	raw, read := slices.Clone(t.raw), t.read
	named, mm, known := slices.Clone(t.named), t.mm, t.owner != nil
	before := slices.Clone(t.sockets)
	d.mu.Unlock()

	same := func(fd uint32) bool {
		at := 8 * int(fd)
		return at+8 <= len(raw) && at+8 <= len(named) && string(raw[at:at+8]) == string(named[at:at+8])
	}
	after := make([]heldSocket, 0, len(before))
	for _, s := range before {
		if !same(s.fd) {
			continue
		}
		if again {
			var ok bool
			if s, ok = g.k.stillSocket(binary.LittleEndian.Uint64(raw[8*s.fd:]), s); !ok {
				continue
			}
		}
		after = append(after, s)
	}
	for at := 0; at+8 <= len(raw) && limit > 0; at += 8 {
		file := binary.LittleEndian.Uint64(raw[at:])
		if fd := uint32(at / 8); file != 0 && !same(fd) {
			if s, ok := g.k.socketOf(file, fd); ok {
				after = append(after, s)
				limit--
			}
		}
	}
	if limit == 0 {
		return // the next sweep does it
	}
	var owner *Process
	if leader, err := g.k.task(key.leader); err == nil && leader.id() == t.id && len(after) > 0 && (!known || leader.mm != mm) {
		p := g.process(leader, nil)
		p.Views = []string{}
		owner, mm = &p, leader.mm
	}

	d.mu.Lock()
	defer d.mu.Unlock()
	if d.tables[key] != t || t.at.After(read) {
		return // somebody was faster
	}
	was, is := make(map[pastKey]bool, len(before)), make(map[pastKey]bool, len(after))
	for _, s := range t.sockets {
		was[s.key] = true
	}
	for _, s := range after {
		is[s.key] = true
	}
	for _, s := range t.sockets {
		if !is[s.key] {
			d.past.ended(s, t)
		}
	}
	if owner != nil {
		t.owner, t.mm = owner, mm
	}
	t.named, t.at, t.sockets = raw, read, after
	for _, s := range after {
		if !was[s.key] {
			d.past.held(s, t)
		}
	}
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
	if err := g.fds.pass(ctx, look.k, time.Now()); err != nil {
		return err
	}
	for i, key := range g.fds.all() {
		if i&63 == 0 && ctx.Err() != nil {
			return ctx.Err()
		}
		look.name(key, maxPast, true)
	}
	return nil
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
