package vmi

import "net/netip"

// How well a socket answers a query, best first.
const (
	matchFlow      = iota // both ends are the query's
	matchFlowNAT          // the remote end is, the local address was translated on the way
	matchBound            // not connected, and bound to the query's address or to any
	matchOther            // not connected, in another namespace or bound to another address
	matchElsewhere        // connected to somebody else
	matchLevels
)

// rank says how well a socket on the query's port answers it. home is the
// network namespace where it most likely is.
func rank(s sock, q Query, home uint64) int {
	connected := s.remote.Port() != 0
	if !q.Remote.Addr().IsValid() {
		connected = false // nothing to compare with: all sockets of the port are alike
	}
	localOK := !q.Local.Addr().IsValid() || sameHost(s, q.Local.Addr())
	switch {
	case connected && sameEnd(s.remote, q.Remote) && localOK:
		return matchFlow
	case connected && sameEnd(s.remote, q.Remote):
		return matchFlowNAT
	case connected:
		return matchElsewhere
	case localOK && s.net == home:
		return matchBound
	}
	return matchOther
}

// sameHost says whether a socket receives what is sent to addr.
func sameHost(s sock, addr netip.Addr) bool {
	addr = addr.Unmap().WithZone("")
	local := s.local.Addr()
	if local.IsUnspecified() {
		return local.Is4() == addr.Is4() || local.Is6() && !s.v6only
	}
	return local == addr
}

func sameEnd(a, b netip.AddrPort) bool {
	return a.Port() == b.Port() && a.Addr().Unmap() == b.Addr().Unmap().WithZone("")
}

// choose orders sockets by how well they answer: the result's groups are to be
// tried one after the other until one has an owner. A connection that nobody
// holds (not accepted yet, or a stand-in) is its listener's.
func choose(all []sock, q Query, home uint64) [matchLevels][]sock {
	var groups [matchLevels][]sock
	for _, s := range all {
		r := rank(s, q, home)
		groups[r] = append(groups[r], s)
	}
	return groups
}
