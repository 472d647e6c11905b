package vmi

import (
	"net/netip"
	"testing"
)

func TestRank(t *testing.T) {
	at := netip.MustParseAddrPort
	none := netip.AddrPort{}
	const initial, other = 1, 2
	query := Query{Proto: 6, Local: at("192.0.2.1:80"), Remote: at("198.51.100.7:4000")}
	for name, c := range map[string]struct {
		s    sock
		q    Query
		want int
	}{
		"its connection":             {sock{net: initial, local: at("192.0.2.1:80"), remote: at("198.51.100.7:4000")}, query, matchFlow},
		"its connection, container":  {sock{net: other, local: at("192.0.2.1:80"), remote: at("198.51.100.7:4000")}, query, matchFlow},
		"translated on the way":      {sock{net: other, local: at("172.17.0.2:80"), remote: at("198.51.100.7:4000")}, query, matchFlowNAT},
		"another's connection":       {sock{net: initial, local: at("192.0.2.1:80"), remote: at("198.51.100.8:4000")}, query, matchElsewhere},
		"another port":               {sock{net: initial, local: at("192.0.2.1:80"), remote: at("198.51.100.7:4001")}, query, matchElsewhere},
		"listener":                   {sock{net: initial, local: at("0.0.0.0:80"), remote: at("0.0.0.0:0")}, query, matchBound},
		"listener on the address":    {sock{net: initial, local: at("192.0.2.1:80"), remote: at("0.0.0.0:0")}, query, matchBound},
		"listener elsewhere":         {sock{net: initial, local: at("127.0.0.1:80"), remote: at("0.0.0.0:0")}, query, matchOther},
		"listener in a container":    {sock{net: other, local: at("0.0.0.0:80"), remote: at("0.0.0.0:0")}, query, matchOther},
		"dual-stack listener":        {sock{net: initial, local: at("[::]:80"), remote: at("[::]:0")}, query, matchBound},
		"IPv6-only listener":         {sock{net: initial, local: at("[::]:80"), remote: at("[::]:0"), v6only: true}, query, matchOther},
		"IPv4 in IPv6 in the query":  {sock{net: initial, local: at("192.0.2.1:80"), remote: at("198.51.100.7:4000")}, Query{Local: at("[::ffff:192.0.2.1]:80"), Remote: at("[::ffff:198.51.100.7]:4000")}, matchFlow},
		"link-local with a zone":     {sock{net: initial, local: at("[fe80::1]:80"), remote: at("[fe80::2]:9")}, Query{Local: at("[fe80::1%eth0]:80"), Remote: at("[fe80::2%eth0]:9")}, matchFlow},
		"no remote: all are alike":   {sock{net: initial, local: at("192.0.2.1:80"), remote: at("198.51.100.8:4000")}, Query{Local: at("192.0.2.1:80"), Remote: none}, matchBound},
		"IPv4 listener, IPv6 client": {sock{net: initial, local: at("0.0.0.0:80"), remote: at("0.0.0.0:0")}, Query{Local: at("[2001:db8::1]:80")}, matchOther},
	} {
		if got := rank(c.s, c.q, initial); got != c.want {
			t.Errorf("%s: %d, want %d", name, got, c.want)
		}
	}
}
