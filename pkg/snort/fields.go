package snort

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Bounds of an alert's texts, in bytes.
const (
	maxMessage = 1024
	maxClass   = 256
	maxRaw     = 4096 // thousands of alerts may be waiting
)

// parseAction maps both engines' words. Forms that say what the engine would
// have done (would_drop) or could not do (cant_drop) let the packet go on, so
// they do not convict; rewritten packets go on as well.
func parseAction(s string) (Action, error) {
	switch word := strings.TrimPrefix(strings.ToLower(s), "force_"); word {
	case "drop", "block", "blocked", "sdrop":
		return ActionDrop, nil
	case "reject", "rejected", "reset":
		return ActionReject, nil
	case "allow", "allowed", "alert", "pass", "log", "rewrite", "replace":
		return ActionAlert, nil
	default:
		if strings.HasPrefix(word, "would_") || strings.HasPrefix(word, "cant_") {
			return ActionAlert, nil
		}
		return "", fmt.Errorf("unknown action %.32q", s)
	}
}

// parseProto gives the IP protocol number of an engine's name for it, 0 if it
// has none here (Snort says IP for everything that it does not know by name).
// Both engines may call ICMPv6 ICMP: the address decides.
func parseProto(s string, src netip.Addr) uint8 {
	v6 := src.Is6() && !src.Is4In6()
	switch strings.ToUpper(s) {
	case "TCP":
		return 6
	case "UDP":
		return 17
	case "SCTP":
		return 132
	case "IGMP":
		return 2
	case "GRE":
		return 47
	case "ESP":
		return 50
	case "AH":
		return 51
	case "ICMP":
		if v6 {
			return 58
		}
		return 1
	case "IPV6-ICMP", "ICMPV6", "ICMP6":
		return 58
	}
	n, err := strconv.ParseUint(s, 10, 8)
	if err != nil {
		return 0
	}
	return uint8(n)
}

// parseEndpoint reads an address; empty is the zero AddrPort (the packet was
// not IP). Zones name a device of ours and are refused.
func parseEndpoint(addr string, port uint16) (netip.AddrPort, error) {
	if addr == "" {
		return netip.AddrPort{}, nil
	}
	a, err := netip.ParseAddr(addr)
	if err != nil || a.Zone() != "" {
		return netip.AddrPort{}, fmt.Errorf("bad address %.64q", addr)
	}
	return netip.AddrPortFrom(a, port), nil
}

// parseMAC reads an Ethernet address in either case; empty is nil.
func parseMAC(s string) (net.HardwareAddr, error) {
	if s == "" {
		return nil, nil
	}
	mac, err := net.ParseMAC(s)
	if err != nil || len(mac) != 6 {
		return nil, fmt.Errorf("bad MAC address %.64q", s)
	}
	return mac, nil
}

func parseVLAN(tci int64) (uint16, error) {
	if tci < 0 || tci > 4095 {
		return 0, fmt.Errorf("VLAN %d is out of range", tci)
	}
	return uint16(tci), nil
}

// clean makes a text of the engine fit to be shown: valid UTF-8 of at most
// limit bytes, with control characters (terminal escapes) as spaces.
func clean(s string, limit int) string {
	s = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(s, "\uFFFD"))
	if len(s) <= limit {
		return s
	}
	s = s[:limit]
	for !utf8.ValidString(s) {
		s = s[:len(s)-1]
	}
	return s
}

// raw keeps the beginning of a line as it is.
func raw(line []byte) string { return string(line[:min(len(line), maxRaw)]) }
