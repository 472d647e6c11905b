package api

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/vmgate/vmgate/pkg/verdict"
)

// ParseProto reads an IP protocol as it is written in calls and on the command
// line: a name in any case, or a number.
func ParseProto(s string) (uint8, error) {
	if number, known := verdict.ProtoNumber(strings.ToLower(s)); known && number != 0 {
		return number, nil
	}
	n, err := strconv.ParseUint(s, 10, 8)
	if err != nil {
		return 0, fmt.Errorf("%w: %q is no protocol: write tcp, udp, udplite, sctp, icmp, icmpv6 or a number below 256", ErrInvalid, s)
	}
	return uint8(n), nil
}

// ProtoName is the inverse of ParseProto.
func ProtoName(number uint8) string {
	if number == 0 {
		return "0" // a protocol here, not "any"
	}
	return verdict.ProtoName(number)
}

// normalProto checks a protocol and gives it its usual form, and says whether
// it has ports.
func normalProto(s string) (proto string, ports bool, err error) {
	number, err := ParseProto(s)
	if err != nil {
		return "", false, err
	}
	return ProtoName(number), verdict.HasPorts(number), nil
}
