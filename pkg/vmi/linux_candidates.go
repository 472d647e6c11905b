package vmi

import (
	"context"
	"errors"
	"fmt"
)

// Packets leave a guest without a socket bound to their port where a process
// writes their headers itself: by packet sockets (AF_PACKET) and AF_XDP
// sockets, whatever they contain, and by raw sockets, each of which may be told
// to take its headers from the process (IP_HDRINCL) at any time.

// headerSocket is a socket by which a process writes headers, and of which kind.
type headerSocket struct {
	sock
	how string
}

// headerSockets are the sockets by which processes write headers themselves.
func (k *linuxKernel) headerSockets(q Query, nets []netns) ([]headerSocket, error) {
	var out []headerSocket
	within := netSet(nets)
	collect := func(addr uint64) error {
		s, err := k.sock(addr, 0)
		if err != nil || !within[s.net] || len(out) >= maxSockets {
			return err
		}
		switch s.family {
		case familyPacket, familyXDP:
			out = append(out, headerSocket{s, s.String()})
		default:
			if canSend(s, q) {
				out = append(out, headerSocket{s, fmt.Sprintf("raw socket of protocol %d", s.local.Port())})
			}
		}
		return nil
	}
	err := errors.Join(k.linkSockets(nets, collect), k.rawSockets("raw_v4_hashinfo", collect), k.rawSockets("raw_v6_hashinfo", collect))
	return out, err
}

// canSend says whether a raw socket is of the query's address family.
func canSend(s sock, q Query) bool {
	addr := q.Local.Addr()
	if !addr.IsValid() || addr.IsUnspecified() {
		addr = q.Remote.Addr()
	}
	return !addr.IsValid() || addr.Unmap().Is6() == (s.family == familyIPv6)
}

// linkSockets visits the packet and AF_XDP sockets of namespaces.
func (k *linuxKernel) linkSockets(nets []netns, fn eachSock) error {
	for _, n := range nets {
		for _, list := range []field{k.NetPacket, k.NetXDP} {
			if list.size == 0 {
				continue
			}
			if err := k.socketChain(n.addr+uint64(list.off), k.SockNode, fn); err != nil {
				return err
			}
		}
	}
	return nil
}

// addCandidates names who could have sent what no socket explains.
func (g *linuxGuest) addCandidates(ctx context.Context, answer *Answer, q Query, nets []netns) error {
	socks, err := g.k.headerSockets(q, nets)
	if err != nil || len(socks) == 0 {
		return err
	}
	files, how := make(map[uint64]openFile), make(map[uint64]string)
	for _, s := range socks {
		f, ok, err := g.k.openFile(s.sock)
		if err != nil {
			return err
		}
		if !ok {
			answer.Untraced++ // made by the kernel, as by a module
			continue
		}
		files[f.file], how[f.file] = f, s.how
	}
	holders, _, err := g.resolve(ctx, files)
	if err != nil {
		return err
	}
	traced := make(map[uint64]bool)
	for _, h := range holders {
		traced[h.file] = true
	}
	answer.Untraced += len(files) - len(traced)
	more, err := g.describe(ctx, holders, how)
	answer.Candidates = append(answer.Candidates, more...)
	return err
}
