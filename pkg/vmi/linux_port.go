package vmi

import "fmt"

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
	for _, n := range nets {
		walk := k.udpPort
		if q.Proto == protoTCP {
			walk = k.tcpPort
		}
		err := walk(n, q.Local.Port(), func(addr uint64) error {
			// Ports share a slot: most are told apart without reading the whole.
			if port, err := k.word(addr+uint64(k.SockPort.off), 2); err != nil || uint16(port) != q.Local.Port() {
				return err
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
