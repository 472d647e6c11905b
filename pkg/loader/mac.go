package loader

import "net"

// MAC is an Ethernet address.
type MAC [6]byte

// String returns the address in the usual notation, 52:54:00:12:34:56.
func (m MAC) String() string { return net.HardwareAddr(m[:]).String() }
