package vmi

import (
	"context"
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
)

// A descriptor that was sent over a unix socket (SCM_RIGHTS) and not yet
// received is in no process's table: the message in the queue holds the file.

// Bounds on what waits in unix sockets; maxPassed is SCM_MAX_FD (include/net/scm.h).
const (
	maxQueued       = 1 << 16
	maxPassed       = 253
	unixHash        = 256     // UNIX_HASH_SIZE, a network namespace
	unixHashClassic = 2 * 256 // up to 5.18 one table for all
)

// flight is a file under way: from whom to whom.
type flight struct{ sender, receiver uint64 } // of unix sockets

// inFlight looks for files in the queues of all unix sockets.
func (k *linuxKernel) inFlight(ctx context.Context, want map[uint64]bool) (map[uint64]flight, error) {
	out := make(map[uint64]flight)
	if k.SKBuffCB.size == 0 || k.UnixParmsFP.size == 0 || k.UnixPeer.size == 0 || k.SockQueue.size == 0 {
		return out, nil
	}
	err := k.unixSockets(func(sk uint64) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		return k.passed(sk, func(file uint64) error {
			if !want[file] {
				return nil
			}
			peer, err := k.member(sk, k.UnixPeer)
			out[file] = flight{sender: peer, receiver: sk}
			return err
		})
	})
	return out, err
}

// unixSockets visits all unix sockets.
func (k *linuxKernel) unixSockets(fn eachSock) error {
	if at, ok := k.sym["unix_socket_table"]; ok {
		return k.chains(at, unixHashClassic, fn)
	}
	if k.NetUnix.size == 0 {
		return nil
	}
	nets, err := k.namespaces()
	if err != nil {
		return err
	}
	for _, n := range nets {
		buckets, err := k.member(n.addr, k.NetUnix)
		if err != nil {
			return err
		}
		if err := k.chains(buckets, unixHash, fn); err != nil {
			return err
		}
	}
	return nil
}

// passed visits the files in the messages that wait in a unix socket.
func (k *linuxKernel) passed(sk uint64, fn func(file uint64) error) error {
	return k.list(sk+uint64(k.SockQueue.off), maxQueued, func(skb uint64) error {
		list, err := k.member(skb, field{off: k.SKBuffCB.off + k.UnixParmsFP.off})
		if err != nil || !k.isDirect(list) {
			return err
		}
		count, err := k.word(list+uint64(k.FPCount.off), 2)
		if err != nil {
			return err
		}
		raw := make([]byte, 8*min(count, maxPassed))
		if err := k.read(raw, list+uint64(k.FPFiles.off)); err != nil {
			return err
		}
		for ; len(raw) > 0; raw = raw[8:] {
			if err := fn(binary.LittleEndian.Uint64(raw)); err != nil {
				return err
			}
		}
		return nil
	})
}

// addFlight says so where the queried socket is under way between processes, and
// names who holds the ends of the unix sockets.
func (g *linuxGuest) addFlight(ctx context.Context, answer *Answer, socks []sock) error {
	want := make(map[uint64]bool)
	for _, s := range socks {
		if f, ok, err := g.k.openFile(s); err == nil && ok {
			want[f.file] = true
		}
	}
	if len(want) == 0 {
		return nil
	}
	flights, err := g.k.inFlight(ctx, want)
	if err != nil || len(flights) == 0 {
		return err
	}
	files, what := make(map[uint64]openFile), make(map[uint64]string)
	add := func(sk uint64, end string) error {
		if !g.k.isDirect(sk) {
			return nil // closed
		}
		s, err := g.k.sock(sk, 0)
		if err != nil {
			return err
		}
		f, ok, err := g.k.openFile(s)
		if ok {
			files[f.file], what[f.file] = f, end
		}
		return err
	}
	for _, file := range slices.Sorted(maps.Keys(flights)) {
		if err := add(flights[file].sender, "the unix socket that it was sent by"); err != nil {
			return err
		}
		if err := add(flights[file].receiver, "the unix socket that it waits in"); err != nil {
			return err
		}
	}
	holders, _, err := g.resolve(ctx, files)
	if err != nil {
		return err
	}
	answer.State = StateInFlight
	answer.Note = fmt.Sprintf("it is on its way over a unix socket and nobody holds it; %d descriptors of that are known", len(holders))
	answer.Candidates, err = g.describe(ctx, holders, what)
	return err
}
