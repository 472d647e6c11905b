// Package lease knows which addresses DHCP servers have leased to VMs. It reads
// servers' messages, which may be hostile, and touches nothing of the system.
package lease

import (
	"encoding/binary"
	"net/netip"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
)

// Ack is a server's word that a client has an IPv4 address from now on.
type Ack struct {
	Client [6]byte // its MAC address
	Addr   netip.Addr
	For    time.Duration
}

// ParseAck reads a DHCP message (RFC 2131, 2) whose end may be cut off. ok is false
// for what is no acknowledged lease of an address that a host can have: offers,
// refusals, answers to DHCPINFORM, and what cannot be read.
func ParseAck(message []byte) (ack Ack, ok bool) {
	const ethernet, macLen = 1, 6
	// gopacket trusts the length of the client's address, beyond which it reads.
	if len(message) < 3 || message[1] != ethernet || message[2] != macLen {
		return Ack{}, false
	}
	// gopacket knows the options, and the tests build messages by it. An error says
	// that the last option is not whole; those before it are.
	var m layers.DHCPv4
	if err := m.DecodeFromBytes(message, gopacket.NilDecodeFeedback); err != nil && len(m.Options) == 0 {
		return Ack{}, false
	}
	ack.Addr, _ = netip.AddrFromSlice(m.YourClientIP)
	copy(ack.Client[:], m.ClientHWAddr)
	isAck := false
	for _, o := range m.Options {
		switch {
		case o.Type == layers.DHCPOptMessageType && len(o.Data) == 1:
			isAck = layers.DHCPMsgType(o.Data[0]) == layers.DHCPMsgTypeAck
		case o.Type == layers.DHCPOptLeaseTime && len(o.Data) == 4:
			ack.For = time.Duration(binary.BigEndian.Uint32(o.Data)) * time.Second
		}
	}
	ok = m.Operation == layers.DHCPOpReply && isAck && ack.For > 0 && ack.Addr.Is4() && ack.Addr.IsGlobalUnicast()
	return ack, ok
}
