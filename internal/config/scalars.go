package config

import (
	"fmt"
	"net"
	"strconv"
	"strings"
)

// MAC is a unicast Ethernet address.
type MAC [6]byte

// UnmarshalText parses the usual notations of a MAC address.
func (m *MAC) UnmarshalText(b []byte) error {
	hw, err := net.ParseMAC(string(b))
	if err != nil || len(hw) != 6 {
		return fmt.Errorf("%q is no MAC address: write it as 52:54:00:12:34:56", b)
	}
	if hw[0]&1 != 0 {
		return fmt.Errorf("%s is a multicast address, and no VM can have it", hw)
	}
	copy(m[:], hw)
	return nil
}

// MarshalText implements encoding.TextMarshaler.
func (m MAC) MarshalText() ([]byte, error) { return []byte(m.String()), nil }

// String writes the address in lower case with colons.
func (m MAC) String() string { return net.HardwareAddr(m[:]).String() }

// VLAN is a tag stack: "10" or "10.20" (outer.inner); 0 is untagged.
type VLAN struct{ Outer, Inner uint16 }

// UnmarshalText parses a VLAN.
func (v *VLAN) UnmarshalText(b []byte) error {
	outer, inner, double := strings.Cut(string(b), ".")
	o, err := strconv.ParseUint(outer, 10, 16)
	if err == nil && double {
		var i uint64
		i, err = strconv.ParseUint(inner, 10, 16)
		v.Inner = uint16(i)
		if v.Inner == 0 {
			err = strconv.ErrRange
		}
	}
	v.Outer = uint16(o)
	if err != nil || v.Outer > 4094 || v.Inner > 4094 || double && v.Outer == 0 {
		return fmt.Errorf("%q is no VLAN: write 10, or 10.20 for two tags, or 0 for untagged", b)
	}
	return nil
}

// MarshalText implements encoding.TextMarshaler.
func (v VLAN) MarshalText() ([]byte, error) {
	if v.Inner != 0 {
		return fmt.Appendf(nil, "%d.%d", v.Outer, v.Inner), nil
	}
	return strconv.AppendUint(nil, uint64(v.Outer), 10), nil
}

// PortRange is a range of ports, both ends included.
type PortRange struct{ First, Last uint16 }

// UnmarshalText parses "80" or "8000-8010".
func (p *PortRange) UnmarshalText(b []byte) error {
	first, last, isRange := strings.Cut(string(b), "-")
	if !isRange {
		last = first
	}
	f, err1 := strconv.ParseUint(strings.TrimSpace(first), 10, 16)
	l, err2 := strconv.ParseUint(strings.TrimSpace(last), 10, 16)
	if err1 != nil || err2 != nil || f > l {
		return fmt.Errorf("%q is no port range: write 80 or 8000-8010", b)
	}
	p.First, p.Last = uint16(f), uint16(l)
	return nil
}

// MarshalText implements encoding.TextMarshaler.
func (p PortRange) MarshalText() ([]byte, error) {
	if p.First == p.Last {
		return strconv.AppendUint(nil, uint64(p.First), 10), nil
	}
	return fmt.Appendf(nil, "%d-%d", p.First, p.Last), nil
}
