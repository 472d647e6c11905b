package vmi

import (
	"fmt"
	"math/bits"
)

// maxElsewhere bounds the connections to others that are considered for a query:
// a server has thousands on its port, and they are the last resort.
const maxElsewhere = 64

// ports reads a socket's ports alone: most can be told apart by these, for a
// third of the time. Both lie in one word (skc_portpair, include/net/sock.h).
func (k *linuxKernel) ports(addr uint64) (local, peer uint16, err error) {
	both, err := k.word(addr+uint64(k.SockPeerPort.off), 4)
	peer = bits.ReverseBytes16(uint16(both)) // in network order
	if k.SockPort.off == k.SockPeerPort.off+2 || err != nil {
		return uint16(both >> 16), peer, err
	}
	port, err := k.word(addr+uint64(k.SockPort.off), 2)
	return uint16(port), peer, err
}

// portSockets reads all sockets that a query can be about, in the network
// namespaces given.
func (k *linuxKernel) portSockets(q Query, nets []netns) ([]sock, error) {
	if !tabled(q.Proto) {
		return nil, nil // in a module; found by descriptor
	}
	if q.Proto != protoTCP && q.Proto != protoUDP {
		return k.portless(q, nets)
	}
	var out []sock
	elsewhere := 0
	for _, n := range nets {
		walk := k.udpPort
		if q.Proto == protoTCP {
			walk = k.tcpPort
		}
		err := walk(n, q.Local.Port(), func(addr uint64) error {
			local, peer, err := k.ports(addr)
			if err != nil || local != q.Local.Port() {
				return err // ports share a slot
			}
			if q.Remote.Addr().IsValid() && peer != 0 && peer != q.Remote.Port() {
				if elsewhere++; elsewhere > maxElsewhere {
					return nil
				}
			}
			s, err := k.sock(addr, q.Proto)
			if err == nil && s.local.Port() == q.Local.Port() && s.net == n.addr {
				out = append(out, s)
			}
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	return out, nil
}

// portless reads the sockets that send a protocol without ports. Raw sockets
// keep the protocol's number where others keep the port, ping sockets the
// identifier of their echo requests: where the query names one and it is found
// there, that is the one.
func (k *linuxKernel) portless(q Query, nets []netns) ([]sock, error) {
	within := netSet(nets)
	var raw, ping []sock
	collect := func(to *[]sock, port uint16) eachSock {
		return func(addr uint64) error {
			s, err := k.sock(addr, q.Proto)
			if err == nil && s.local.Port() == port && within[s.net] {
				*to = append(*to, s)
			}
			return err
		}
	}
	if q.Proto == protoICMP || q.Proto == protoICMPv6 {
		if err := k.pingSockets(collect(&ping, q.Local.Port())); err != nil {
			return nil, err
		}
		if len(ping) > 0 && q.Local.Port() != 0 {
			return ping, nil
		}
	}
	for _, table := range []string{"raw_v4_hashinfo", "raw_v6_hashinfo"} {
		if err := k.rawSockets(table, collect(&raw, uint16(q.Proto))); err != nil {
			return nil, err
		}
	}
	return append(raw, ping...), nil
}

// netSet are the addresses of namespaces.
func netSet(nets []netns) map[uint64]bool {
	out := make(map[uint64]bool, len(nets))
	for _, n := range nets {
		out[n.addr] = true
	}
	return out
}

// namespacesOf are those that a query is about, the one where a socket answers
// it best first.
func (k *linuxKernel) namespacesOf(q Query) ([]netns, error) {
	all, err := k.namespaces()
	if err == nil && len(all) == 0 {
		err = fmt.Errorf("%w: no network namespaces", ErrUnstable)
	}
	if err != nil || q.NetNS == 0 {
		return all, err
	}
	for _, n := range all {
		if k.netNumber(n.addr) == q.NetNS {
			return []netns{n}, nil
		}
	}
	return nil, fmt.Errorf("%w: %d", ErrNoNamespace, q.NetNS)
}
