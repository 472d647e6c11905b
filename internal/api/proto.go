package api

import (
	"fmt"
	"strconv"
	"strings"
)

// protocols are those that have a name here; the rest are written as numbers
// (IANA, Assigned Internet Protocol Numbers).
var protocols = []struct {
	name   string
	number uint8
	ports  bool
}{
	{"tcp", 6, true}, {"udp", 17, true}, {"sctp", 132, true},
	{"icmp", 1, false}, {"icmpv6", 58, false},
}

// ParseProto reads an IP protocol as it is written in calls and on the command
// line: a name in any case, or a number.
func ParseProto(s string) (uint8, error) {
	for _, p := range protocols {
		if strings.EqualFold(s, p.name) {
			return p.number, nil
		}
	}
	n, err := strconv.ParseUint(s, 10, 8)
	if err != nil {
		return 0, fmt.Errorf("%w: %q is no protocol: write tcp, udp, sctp, icmp, icmpv6 or a number below 256", ErrInvalid, s)
	}
	return uint8(n), nil
}

// ProtoName is the inverse of ParseProto.
func ProtoName(number uint8) string {
	for _, p := range protocols {
		if p.number == number {
			return p.name
		}
	}
	return strconv.Itoa(int(number))
}

// normalProto checks a protocol and gives it its usual form, and says whether
// it has ports.
func normalProto(s string) (proto string, ports bool, err error) {
	number, err := ParseProto(s)
	if err != nil {
		return "", false, err
	}
	for _, p := range protocols {
		if p.number == number {
			ports = p.ports
		}
	}
	return ProtoName(number), ports, nil
}
