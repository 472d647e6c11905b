package vmi

// portSockets reads all sockets that a query can be about, in all of the
// guest's network namespaces.
func (k *linuxKernel) portSockets(q Query) ([]sock, error) {
	if q.Proto != protoTCP && q.Proto != protoUDP {
		return k.portless(q)
	}
	nets, err := k.namespaces()
	if err != nil {
		return nil, err
	}
	var out []sock
	for _, n := range nets {
		walk := k.udpPort
		if q.Proto == protoTCP {
			walk = k.tcpPort
		}
		err := walk(n, q.Local.Port(), func(addr uint64) error {
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
func (k *linuxKernel) portless(q Query) ([]sock, error) {
	var raw, ping []sock
	collect := func(to *[]sock, port uint16) eachSock {
		return func(addr uint64) error {
			s, err := k.sock(addr, q.Proto)
			if err == nil && s.local.Port() == port {
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
