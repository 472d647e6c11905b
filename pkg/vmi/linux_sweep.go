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

// A sweep looks up the sockets in all tables of descriptors that are new there,
// and reads those again that it knows: they may have been bound or connected.

// maxNaming is how many new sockets one look-up of an owner takes along.
const maxNaming = 64

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
