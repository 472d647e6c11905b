package config

import (
	"fmt"
	"net/netip"
	"strings"
)

// RuleAddress is an element of a rule variable: a prefix, $HOME_NET, or any address.
type RuleAddress struct {
	Not    bool
	Home   bool
	Prefix netip.Prefix // not valid: any address, or Home
}

// UnmarshalText parses "10.0.0.1", "10.0.0.0/8", "$HOME_NET" or "any", and "!" before
// any of them.
func (a *RuleAddress) UnmarshalText(b []byte) error {
	text, not := strings.CutPrefix(string(b), "!")
	switch text {
	case "any":
		*a = RuleAddress{Not: not}
		return nil
	case "$HOME_NET":
		*a = RuleAddress{Not: not, Home: true}
		return nil
	}
	prefix, err := netip.ParsePrefix(text)
	if err != nil {
		var addr netip.Addr
		addr, err = netip.ParseAddr(text)
		prefix = netip.PrefixFrom(addr, addr.BitLen())
	}
	if err != nil || prefix.Addr().Zone() != "" || prefix.Addr().Is4In6() || prefix != prefix.Masked() {
		return fmt.Errorf("%q is no address of a rule: write 192.0.2.1, 192.0.2.0/24, $HOME_NET or any", b)
	}
	*a = RuleAddress{Not: not, Prefix: prefix}
	return nil
}

// MarshalText implements encoding.TextMarshaler.
func (a RuleAddress) MarshalText() ([]byte, error) {
	text := "any"
	switch {
	case a.Home:
		text = "$HOME_NET"
	case a.Prefix.IsSingleIP():
		text = a.Prefix.Addr().String()
	case a.Prefix.IsValid():
		text = a.Prefix.String()
	}
	return []byte(negated(a.Not) + text), nil
}

// RulePorts is an element of a rule variable: a range of ports.
type RulePorts struct {
	Not bool
	PortRange
}

// UnmarshalText parses "80", "8000-8010" or "any", and "!" before any of them.
func (p *RulePorts) UnmarshalText(b []byte) error {
	text, not := strings.CutPrefix(string(b), "!")
	if text == "any" {
		text = "0-65535"
	}
	p.Not = not
	return p.PortRange.UnmarshalText([]byte(text))
}

// MarshalText implements encoding.TextMarshaler.
func (p RulePorts) MarshalText() ([]byte, error) {
	text, err := p.PortRange.MarshalText()
	if p.First == 0 && p.Last == 65535 {
		text = []byte("any")
	}
	return append([]byte(negated(p.Not)), text...), err
}

func negated(not bool) string {
	if not {
		return "!"
	}
	return ""
}
