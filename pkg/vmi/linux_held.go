package vmi

import (
	"context"
	"encoding/binary"
	"time"
)

// Sockets as processes hold them: found by descriptor, and in no table of the
// network stack. That finds protocols whose tables belong to a module (SCTP,
// UDP-Lite), and sockets that somebody has taken out of the tables to hide them.

// heldFor is how long what was found by descriptor is used again: the search is
// the dearest of all, and a guest can make every packet ask for it.
// Sweeps find the same, a little more often than that.
const heldFor = 1500 * time.Millisecond

// From include/uapi/linux/in.h, and include/linux/net.h.
const (
	protoSCTP    = 132
	protoUDPLite = 136
	protoMPTCP   = 262 // no number of the wire's
	typeRaw      = 3   // SOCK_RAW
)

// heldSock is a socket of the internet protocols that a process holds.
type heldSock struct {
	sock
	raw   bool
	mptcp bool
	file  uint64
}

// heldSockets calls fn with every such socket, each once.
func (k *linuxKernel) heldSockets(ctx context.Context, fn func(heldSock)) error {
	k = k.oneLook()
	files, seen := make(map[uint64]bool), make(map[table]bool)
	for _, view := range []func(context.Context) ([]task, error){k.tasksAndThreads, k.treeAndThreads, k.slabView} {
		tasks, err := view(ctx)
		if err != nil {
			return err
		}
		for _, t := range tasks {
			if err := ctx.Err(); err != nil {
				return err
			}
			key := table{t.leader, t.files}
			if seen[key] || !k.isDirect(t.files) {
				continue
			}
			seen[key] = true
			// Tasks exit while they are looked at: no error.
			_ = k.eachFile(t.files, func(file uint64) {
				if !files[file] && len(files) < maxSockets {
					files[file] = true
					if s, ok := k.heldSock(file); ok {
						fn(s)
					}
				}
			})
		}
	}
	return nil
}

// eachFile visits the open files of a table of descriptors.
func (k *linuxKernel) eachFile(files uint64, fn func(file uint64)) error {
	array, n, err := k.fdTable(files)
	if err != nil {
		return err
	}
	var buf [pageSize]byte
	for first := uint32(0); first < n; first += pageSize / 8 {
		chunk := buf[:8*min(n-first, pageSize/8)]
		if err := k.read(chunk, array+8*uint64(first)); err != nil {
			return err
		}
		for ; len(chunk) > 0; chunk = chunk[8:] {
			if file := binary.LittleEndian.Uint64(chunk); k.isDirect(file) {
				fn(file)
			}
		}
	}
	return nil
}

// heldSock follows a file to its socket; ok is false where it is none of the
// internet protocols.
func (k *linuxKernel) heldSock(file uint64) (h heldSock, ok bool) {
	sk, ok := k.sockOfFile(file)
	if !ok {
		return h, false
	}
	family, err := k.word(sk+uint64(k.SockFamily.off), 2)
	if err != nil || family != familyIPv4 && family != familyIPv6 {
		return h, false
	}
	proto, err := k.word(sk+uint64(k.SockProtocol.off), int(min(max(k.SockProtocol.size, 1), 2)))
	if err != nil {
		return h, false
	}
	typ, err := k.word(sk+uint64(k.SockType.off), 2)
	if err != nil {
		return h, false
	}
	h.file, h.raw, h.mptcp = file, typ == typeRaw, proto == protoMPTCP
	if h.mptcp {
		proto = protoTCP
	}
	h.sock, err = k.sock(sk, uint8(proto))
	return h, err == nil
}

// sockOfFile follows a file to its struct sock; ok is false where it is no socket.
func (k *linuxKernel) sockOfFile(file uint64) (sk uint64, ok bool) {
	if ops, err := k.member(file, k.FileOps); err != nil || ops != k.sym["socket_file_ops"] {
		return 0, false
	}
	socket, err := k.member(file, k.FilePrivate)
	if err != nil || !k.isDirect(socket) {
		return 0, false
	}
	sk, err = k.member(socket, k.SocketSock)
	return sk, err == nil && k.isDirect(sk)
}

// addHeld adds to listed sockets those with a port that only processes know of.
func (k *linuxKernel) addHeld(ctx context.Context, listed []sock) ([]sock, error) {
	seen := make(map[uint64]bool, len(listed))
	for _, s := range listed {
		seen[s.addr] = true
	}
	out := listed
	err := k.heldSockets(ctx, func(h heldSock) {
		// What the tables have of an MPTCP socket is its subflows.
		if !seen[h.addr] && !h.mptcp && !h.raw && h.local.Port() != 0 {
			out = append(out, h.sock)
		}
	})
	return out, err
}

// heldPort is what a query names a held socket by. Raw sockets keep their
// protocol where others keep the port.
type heldPort struct {
	proto uint8
	port  uint16
	raw   bool
}

// heldIndex remembers the held sockets by port.
type heldIndex struct {
	turn chan struct{} // holds a token: whoever reads has it
	read time.Time     // when the reading began
	by   map[heldPort][]uint64
}

func newHeldIndex() *heldIndex {
	x := &heldIndex{turn: make(chan struct{}, 1)}
	x.turn <- struct{}{}
	return x
}

// heldOnPort reads the held sockets that a query can be about.
func (g *linuxGuest) heldOnPort(ctx context.Context, q Query, nets []netns) ([]sock, error) {
	keys := []heldPort{{proto: q.Proto, port: q.Local.Port()}}
	oldest := time.Now()
	switch q.Proto {
	case protoTCP, protoUDP:
		oldest = oldest.Add(-heldFor) // only what was hidden is found here alone
	case protoSCTP, protoUDPLite:
	default:
		oldest = oldest.Add(-heldFor)
		keys = append(keys, heldPort{proto: q.Proto, port: uint16(q.Proto), raw: true})
	}
	addrs, swept := []uint64(nil), false
	if q.Proto == protoTCP || q.Proto == protoUDP {
		addrs, swept = g.fds.onPort(q.Proto, q.Local.Port(), oldest)
	}
	if !swept {
		var err error
		if addrs, err = g.held.find(ctx, g.k, keys, oldest); err != nil {
			return nil, err
		}
	}
	within := netSet(nets)
	var out []sock
	for _, addr := range addrs {
		s, err := g.k.sock(addr, q.Proto)
		if err == nil && within[s.net] && s.socket != 0 && (s.local.Port() == keys[0].port || s.local.Port() == uint16(q.Proto)) {
			out = append(out, s)
		}
	}
	return out, nil
}

// find gives the sockets of ports as they were read not before oldest.
func (x *heldIndex) find(ctx context.Context, k *linuxKernel, keys []heldPort, oldest time.Time) ([]uint64, error) {
	select {
	case <-x.turn:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	defer func() { x.turn <- struct{}{} }()
	if x.by == nil || x.read.Before(oldest) {
		begun, by := time.Now(), make(map[heldPort][]uint64)
		err := k.heldSockets(ctx, func(h heldSock) {
			key := heldPort{h.proto, h.local.Port(), h.raw}
			by[key] = append(by[key], h.addr)
		})
		if err != nil {
			return nil, err
		}
		x.read, x.by = begun, by
	}
	var out []uint64
	for _, key := range keys {
		out = append(out, x.by[key]...)
	}
	return out, nil
}
