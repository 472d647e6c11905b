package bpf_test

import (
	"encoding/binary"
	"net/netip"
	"testing"

	"github.com/google/gopacket/layers"

	"github.com/vmgate/vmgate/bpf"
)

// ipEnd returns where the IP packet of an untagged or tagged frame ends.
func ipEnd(frame []byte) int {
	l3 := 14
	for binary.BigEndian.Uint16(frame[l3-2:]) == 0x8100 {
		l3 += 4
	}
	if frame[l3]>>4 == 4 {
		return l3 + int(binary.BigEndian.Uint16(frame[l3+2:]))
	}
	return l3 + 40 + int(binary.BigEndian.Uint16(frame[l3+4:]))
}

func TestParse_NoTruncationOfAFrameIsForwarded(t *testing.T) {
	bothPaths(t, testParse_NoTruncationOfAFrameIsForwarded)
}

func testParse_NoTruncationOfAFrameIsForwarded(t *testing.T, g *gateway) {
	g.macAt(5<<16, macApp1, idApp1, portApp)
	g.macAt(5<<16, macWeb, idWeb, portWeb)
	g.macAt(5<<16|6, macApp1, idApp1, portApp)
	g.macAt(5<<16|6, macWeb, idWeb, portWeb)
	plain := tcpApp1ToWeb(tcp(40000, 80, ack))
	for name, p := range map[string]packet{
		"TCP":           plain,
		"TCP over IPv6": plain.overIPv6(),
		"tagged":        plain.with(func(p *packet) { p.tags = vlan(5) }),
		"double-tagged": plain.with(func(p *packet) { p.tags = vlan(5, 6) }),
		"UDP":           udpApp1ToWeb(1, 2),
		"echo":          echoApp1ToWeb(3),
		"options": plain.with(func(p *packet) {
			p.options = []layers.IPv4Option{{OptionType: 68, OptionLength: 8, OptionData: make([]byte, 6)}}
		}),
		"extensions": plain.overIPv6().with(func(p *packet) { p.firstExt, p.extensions = 0, append(ext(60, 0, 8), ext(6, 0, 16)...) }),
	} {
		t.Run(name, func(t *testing.T) {
			g := g.in(t)
			frame := p.build(t)
			for _, v := range []uint32{0, 5 << 16, 5<<16 | 6} {
				g.decide(6, v, p.src, 40000, p.dst, 80, nil)
			}
			g.decide(17, 0, p.src, 1, p.dst, 2, nil)
			g.decide(1, 0, p.src, 3, p.dst, 3, nil)
			end := ipEnd(frame)
			g.expect(frame[:end], forwardedTo(portWeb)) // whole, without padding
			shortest := 14
			if g.path == pathTCX {
				shortest++ // a test run refuses an skb without payload
			}
			for cut := shortest; cut < end; cut++ {
				g.expect(frame[:cut], malformed)
			}
		})
	}
}

// overwrite returns the frame with bytes changed from offset off.
func overwrite(frame []byte, off int, b ...byte) []byte {
	frame = append([]byte(nil), frame...)
	copy(frame[off:], b)
	return frame
}

func TestParse_WhatIsRefused(t *testing.T) { bothPaths(t, testParse_WhatIsRefused) }

func testParse_WhatIsRefused(t *testing.T, g *gateway) {
	v4 := tcpApp1ToWeb(tcp(40000, 80, ack)).build(t)
	v6 := tcpApp1ToWeb(tcp(40000, 80, ack)).overIPv6().build(t)
	u4 := udpApp1ToWeb(1, 2).build(t)
	src := func(s string) []byte {
		return tcpApp1ToWeb(tcp(1, 2, ack)).with(func(p *packet) { p.src = netip.MustParseAddr(s) }).build(t)
	}
	src6 := func(s string) []byte {
		a := netip.MustParseAddr(s).As16()
		return overwrite(v6, 14+8, a[:]...)
	}
	dst6 := func(s string) []byte {
		a := netip.MustParseAddr(s).As16()
		return overwrite(v6, 14+24, a[:]...)
	}
	extended := func(first layers.IPProtocol, raw []byte) []byte {
		return tcpApp1ToWeb(tcp(1, 2, ack)).overIPv6().with(func(p *packet) { p.firstExt, p.extensions = first, raw }).build(t)
	}
	var nine []byte
	for range 8 {
		nine = append(nine, ext(60, 0, 8)...)
	}
	nine = append(nine, ext(6, 0, 8)...)
	option := func(kind uint8, data ...byte) []byte {
		return tcpApp1ToWeb(tcp(1, 2, ack)).with(func(p *packet) {
			p.options = []layers.IPv4Option{{OptionType: kind, OptionLength: uint8(2 + len(data)), OptionData: data}}
		}).build(t)
	}
	for name, c := range map[string]struct {
		frame []byte
		want  want
	}{
		"source MAC of a group":             {overwrite(v4, 6, 0x03), malformed},
		"802.3 length":                      {overwrite(v4, 12, 0x00, 0x20), dropped(bpf.VmgateReasonREASON_DROP_LLC)},
		"802.3 length beyond the frame":     {overwrite(v4, 12, 0x05, 0x00), malformed},
		"neither length nor ethertype":      {overwrite(v4, 12, 0x05, 0xdd), dropped(bpf.VmgateReasonREASON_DROP_ETHERTYPE)},
		"unknown ethertype":                 {overwrite(v4, 12, 0x88, 0x47), dropped(bpf.VmgateReasonREASON_DROP_ETHERTYPE)},
		"a third tag":                       {tcpApp1ToWeb(tcp(1, 2, ack)).with(func(p *packet) { p.tags = vlan(1, 2, 3) }).build(t), unparsed},
		"IPv4 in the IPv6 ethertype":        {overwrite(v4, 12, 0x86, 0xdd), malformed},
		"IPv6 in the IPv4 ethertype":        {overwrite(v6, 12, 0x08, 0x00), malformed},
		"header length 4 words":             {overwrite(v4, 14, 0x44), malformed},
		"total length below the header":     {overwrite(v4, 16, 0, 19), malformed},
		"total length beyond the frame":     {overwrite(v4, 16, 0xff, 0xff), malformed},
		"payload length beyond the frame":   {overwrite(v6, 18, 0xff, 0xff), malformed},
		"payload length 0 (jumbogram)":      {overwrite(v6, 18, 0, 0), malformed},
		"source is destination":             {src("10.0.0.2"), malformed},
		"source is destination, IPv6":       {src6(web6.String()), malformed},
		"loopback source":                   {src("127.0.0.1"), malformed},
		"multicast source":                  {src("224.0.0.1"), malformed},
		"broadcast source":                  {src("255.255.255.255"), malformed},
		"this-network source":               {src("0.1.2.3"), malformed},
		"no source, not DHCP":               {src("0.0.0.0"), malformed},
		"loopback destination":              {overwrite(v4, 30, 127, 0, 0, 1), malformed},
		"no destination":                    {overwrite(v4, 30, 0, 0, 0, 0), malformed},
		"multicast source, IPv6":            {src6("ff02::1"), malformed},
		"loopback source, IPv6":             {src6("::1"), malformed},
		"mapped source":                     {src6("::ffff:10.0.0.1"), malformed},
		"mapped destination":                {dst6("::ffff:10.0.0.2"), malformed},
		"no source, IPv6":                   {src6("::"), malformed},
		"no destination, IPv6":              {dst6("::"), malformed},
		"TCP data offset 4":                 {overwrite(v4, 14+20+12, 0x40), malformed},
		"TCP data offset beyond the packet": {overwrite(v4, 14+20+12, 0xf0), malformed},
		"SYN with FIN":                      {overwrite(v4, 14+20+13, 0x03), malformed},
		"SYN with RST":                      {overwrite(v4, 14+20+13, 0x06), malformed},
		"UDP length 7":                      {overwrite(u4, 14+20+4, 0, 7), malformed},
		"UDP length beyond the packet":      {overwrite(u4, 14+20+4, 0, 200), malformed},
		"ICMPv6 in IPv4":                    {overwrite(v4, 14+9, 58), malformed},
		"ICMP in IPv6":                      {overwrite(v6, 14+6, 1), malformed},
		"no next header":                    {overwrite(v6, 14+6, 59), unparsed},
		"loose source route":                {option(131, 4, 10, 0, 0, 9, 0), unparsed},
		"strict source route":               {option(137, 4, 10, 0, 0, 9, 0), unparsed},
		"option of length 1":                {overwrite(option(7, 0, 0), 14+20+1, 1), malformed},
		"option beyond the header":          {overwrite(option(7, 0, 0), 14+20+1, 5), malformed},
		"nine extension headers":            {extended(60, nine), unparsed},
		"hop-by-hop not first":              {extended(60, append(ext(0, 0, 8), ext(6, 0, 8)...)), malformed},
		"extension beyond the packet":       {overwrite(extended(60, ext(6, 0, 8)), 14+40+1, 200), malformed},
		"routing header with segments left": {overwrite(extended(43, ext(6, 4, 8)), 14+40+3, 1), unparsed},
	} {
		t.Run(name, func(t *testing.T) { g.in(t).expect(c.frame, c.want) })
	}
}

func TestParse_NothingIsReadBehindThePacketsEnd(t *testing.T) {
	bothPaths(t, testParse_NothingIsReadBehindThePacketsEnd)
}

func testParse_NothingIsReadBehindThePacketsEnd(t *testing.T, g *gateway) {
	g.decide(6, 0, app16, 1, web6, 2, nil)
	frame := tcpApp1ToWeb(tcp(1, 2, ack)).overIPv6().with(func(p *packet) { p.firstExt, p.extensions = 60, ext(6, 0, 16) }).build(t)
	g.expect(frame, forwardedTo(portWeb))
	// The packet ends within its extension header; the TCP header is padding.
	g.expect(overwrite(frame, 18, 0, 8), malformed)
}

func TestParse_EightExtensionHeadersAreRead(t *testing.T) {
	bothPaths(t, testParse_EightExtensionHeadersAreRead)
}

func testParse_EightExtensionHeadersAreRead(t *testing.T, g *gateway) {
	var eight []byte
	for range 7 {
		eight = append(eight, ext(60, 0, 8)...)
	}
	eight = append(eight, ext(6, 0, 8)...)
	g.decide(6, 0, app16, 1, web6, 2, nil)
	g.expect(tcpApp1ToWeb(tcp(1, 2, ack)).overIPv6().with(func(p *packet) { p.firstExt, p.extensions = 60, eight }).build(t), forwardedTo(portWeb))
}

func TestParse_FortyBytesOfOptionsAreRead(t *testing.T) {
	bothPaths(t, testParse_FortyBytesOfOptionsAreRead)
}

func testParse_FortyBytesOfOptionsAreRead(t *testing.T, g *gateway) {
	nops := make([]layers.IPv4Option, 40)
	for i := range nops {
		nops[i].OptionType = 1
	}
	g.decide(6, 0, app1, 1, web, 2, nil)
	g.expect(tcpApp1ToWeb(tcp(1, 2, ack)).with(func(p *packet) { p.options = nops }).build(t), forwardedTo(portWeb))
}

// piece builds one IPv4 fragment of a datagram with the given id.
func piece(t *testing.T, id, offset uint16, more bool, proto layers.IPProtocol, body []byte) []byte {
	p := packet{srcMAC: macApp1, dstMAC: macWeb, src: app1, dst: web, proto: proto, payload: body}
	p.ip4 = func(ip *layers.IPv4) {
		ip.Id, ip.FragOffset = id, offset/8
		if more {
			ip.Flags = layers.IPv4MoreFragments
		}
	}
	return p.build(t)
}

func piece6(t *testing.T, id, offset uint16, more bool, body []byte) []byte {
	h := make([]byte, 8)
	h[0] = 17
	binary.BigEndian.PutUint16(h[2:], offset)
	if more {
		h[3] |= 1
	}
	binary.BigEndian.PutUint16(h[6:], id)
	return packet{
		srcMAC: macApp1, dstMAC: macWeb, src: app16, dst: web6,
		proto: 17, firstExt: 44, extensions: h, payload: body,
	}.build(t)
}

func TestFragments(t *testing.T) { bothPaths(t, testFragments) }

func testFragments(t *testing.T, g *gateway) {
	g.beat(0)
	udpHead := append([]byte{0, 1, 0, 2, 1, 0, 0, 0}, make([]byte, 24)...) // ports 1 and 2
	tcpHead := append([]byte{0, 1, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0x50, 0x10, 0, 0, 0, 0, 0, 0}, make([]byte, 12)...)
	tail := make([]byte, 16)
	forwarded := forwardedTo(portWeb)
	type step struct {
		frame []byte
		want  want
	}
	for name, steps := range map[string][]step{
		"the rest follows its head": {
			{piece(t, 1, 0, true, 17, udpHead), forwarded}, {piece(t, 1, 32, true, 17, tail), forwarded}, {piece(t, 1, 48, false, 17, tail[:3]), forwarded},
		},
		"IPv6: the rest follows its head": {
			{piece6(t, 1, 0, true, udpHead), forwarded}, {piece6(t, 1, 32, false, tail), forwarded},
		},
		"IPv6: an atomic fragment is whole": {{piece6(t, 1, 0, false, overwrite(udpHead, 4, 0, 32)), forwarded}},
		"no head seen":                      {{piece(t, 2, 32, false, 17, tail), badPiece}},
		"IPv6: no head seen":                {{piece6(t, 2, 32, false, tail), badPiece}},
		"another datagram's head":           {{piece(t, 1, 0, true, 17, udpHead), forwarded}, {piece(t, 2, 32, false, 17, tail), badPiece}},
		"another protocol's head":           {{piece(t, 1, 0, true, 17, udpHead), forwarded}, {piece(t, 1, 32, false, 6, tail), badPiece}},
		"a dropped head is forgotten":       {{piece(t, 1, 0, true, 17, overwrite(udpHead, 3, 9)), dropped(bpf.VmgateReasonREASON_DROP_DAEMON_DOWN)}, {piece(t, 1, 32, false, 17, tail), badPiece}},
		"tiny TCP head":                     {{piece(t, 1, 0, true, 6, tcpHead[:16]), badPiece}},
		"tiny TCP head with options":        {{piece(t, 1, 0, true, 6, overwrite(tcpHead[:24], 12, 0xa0)), badPiece}},
		"overlapping the TCP header":        {{piece(t, 1, 0, true, 6, tcpHead), forwarded}, {piece(t, 1, 8, false, 6, tail), badPiece}, {piece(t, 1, 16, false, 6, tail), badPiece}, {piece(t, 1, 32, false, 6, tail), forwarded}},
		"overlapping an earlier piece":      {{piece(t, 1, 0, true, 17, udpHead), forwarded}, {piece(t, 1, 48, true, 17, tail), forwarded}, {piece(t, 1, 56, false, 17, tail), badPiece}, {piece(t, 1, 64, false, 17, tail), forwarded}},
		"out of order":                      {{piece(t, 1, 0, true, 17, udpHead), forwarded}, {piece(t, 1, 48, false, 17, tail), forwarded}, {piece(t, 1, 32, true, 17, tail), badPiece}},
		"a head again":                      {{piece(t, 1, 0, true, 17, udpHead), forwarded}, {piece(t, 1, 0, true, 17, udpHead), forwarded}, {piece(t, 1, 32, false, 17, tail), forwarded}},
		"beyond 65535":                      {{piece(t, 1, 0, true, 17, udpHead), forwarded}, {piece(t, 1, 65528, false, 17, tail), malformed}},
		"odd length in the middle":          {{piece(t, 1, 0, true, 17, udpHead[:31]), malformed}},
		"empty":                             {{piece(t, 1, 32, false, 17, nil), malformed}},
	} {
		t.Run(name, func(t *testing.T) {
			g := g.in(t)
			g.empty("fragments")
			g.decide(17, 0, app1, 1, web, 2, nil)
			g.decide(6, 0, app1, 1, web, 2, nil)
			g.decide(17, 0, app16, 1, web6, 2, nil)
			for i, s := range steps {
				t.Log("step", i)
				g.expect(s.frame, s.want)
			}
		})
	}
}

func TestFragments_DiscoveryIsNeverFragmented(t *testing.T) {
	bothPaths(t, testFragments_DiscoveryIsNeverFragmented)
}

func testFragments_DiscoveryIsNeverFragmented(t *testing.T, g *gateway) {
	frame := piece6(t, 1, 0, true, overwrite(make([]byte, 32), 0, 135))
	frame[14+40] = 58
	g.expect(frame, badPiece)
}

func TestFragments_OfAPendingFlowArePuntedWithinItsLimit(t *testing.T) {
	bothPaths(t, testFragments_OfAPendingFlowArePuntedWithinItsLimit)
}

func testFragments_OfAPendingFlowArePuntedWithinItsLimit(t *testing.T, g *gateway) {
	head := append([]byte{0, 1, 0, 2, 1, 0, 0, 0}, make([]byte, 24)...)
	g.expect(piece(t, 1, 0, true, 17, head), punted())
	g.expect(piece(t, 1, 32, true, 17, head), punted())
	g.expect(piece(t, 1, 64, false, 17, head), dropped(bpf.VmgateReasonREASON_DROP_HELD))
}

func TestParse_PaddingIsLeftAlone(t *testing.T) { bothPaths(t, testParse_PaddingIsLeftAlone) }

func testParse_PaddingIsLeftAlone(t *testing.T, g *gateway) {
	g.decide(17, 0, app1, 1, web, 2, nil)
	p := udpApp1ToWeb(1, 2)
	p.payload = nil
	frame := p.build(t)
	if len(frame) != 60 || ipEnd(frame) >= 60 {
		t.Fatalf("frame of %d bytes is not padded", len(frame))
	}
	g.expect(frame, forwardedTo(portWeb))
}
