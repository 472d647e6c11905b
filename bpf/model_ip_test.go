package bpf_test

import (
	"bytes"
	"encoding/binary"

	"github.com/vmgate/vmgate/bpf"
)

var mappedPrefix = []byte{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff}

func mapped(b []byte) addr { return addr(append(bytes.Clone(mappedPrefix), b[:4]...)) }

func isMapped(a addr) bool { return bytes.HasPrefix(a[:], mappedPrefix) }

func isNone(a addr) bool { return a == addr{} || a == mapped([]byte{0, 0, 0, 0}) }

func isLinkLocal(a addr) bool { return a[0] == 0xfe && a[1]&0xc0 == 0x80 }

func isGroupAddr(a addr) bool {
	if isMapped(a) {
		return a[12] >= 224
	}
	return a[0] == 0xff
}

// flowOf reads an IP packet up to its flow key.
func (m *model) flowOf(p *parsed) reason {
	read := p.ipv4
	if p.ethertype == 0x86dd {
		read = p.ipv6
	}
	if bad := read(); bad != 0 {
		return bad
	}
	if p.from == p.to {
		return rMalformed
	}
	p.kind = kindFlow
	if p.piece != pieceLater {
		if bad := p.transport(); bad != 0 {
			return bad
		}
	}
	if bad := m.join(p); bad != 0 {
		return bad
	}
	p.key, p.fromIndex = modelKey(p.from, p.to, p.sport, p.dport, p.proto)
	p.key.Vlan, p.key.Group = p.vlan, group
	return 0
}

func modelKey(from, to addr, sport, dport uint16, proto uint8) (bpf.VmgateFlowKey, int) {
	k := bpf.VmgateFlowKey{Addr: [2][16]byte{from, to}, Port: [2]uint16{be16(sport), be16(dport)}, Proto: proto}
	if bytes.Compare(from[:], to[:]) <= 0 {
		return k, 0
	}
	k.Addr[0], k.Addr[1], k.Port[0], k.Port[1] = k.Addr[1], k.Addr[0], k.Port[1], k.Port[0]
	return k, 1
}

func (p *parsed) ipv4() reason {
	if !p.has(p.l3, 20) || p.frame[p.l3]>>4 != 4 {
		return rMalformed
	}
	ip := p.frame[p.l3:]
	header, total := int(ip[0]&15)*4, int(p.be16(p.l3+2))
	if header < 20 || total < header || total > len(ip) {
		return rMalformed
	}
	src, dst := ip[12:16], ip[16:20]
	for _, host := range [][]byte{src, dst} {
		if host[0] == 127 || host[0] == 0 && !bytes.Equal(host, []byte{0, 0, 0, 0}) {
			return rMalformed
		}
	}
	if bytes.Equal(dst, []byte{0, 0, 0, 0}) || src[0] >= 0xe0 {
		return rMalformed
	}
	p.from, p.to = mapped(src), mapped(dst)
	p.end, p.proto, p.hops = p.l3+total, ip[9], ip[8]
	for off := 20; off < header && ip[off] != 0; {
		switch {
		case ip[off] == 1:
			off++
			continue
		case ip[off] == 131 || ip[off] == 137:
			return rUnparsed
		case off+1 >= len(ip) || ip[off+1] < 2 || off+int(ip[off+1]) > header:
			return rMalformed
		}
		off += int(ip[off+1])
	}
	p.l4 = p.l3 + header
	p.pieceProto, p.pieceID = ip[9], uint32(p.be16(p.l3+4))
	frag := p.be16(p.l3 + 6)
	return p.fragment(int(frag&0x1fff)*8, frag&0x2000 != 0)
}

func (p *parsed) fragment(offset int, more bool) reason {
	if offset == 0 && !more {
		return 0
	}
	n := p.end - p.l4
	if n <= 0 || more && n%8 != 0 || offset+n > 0xffff {
		return rMalformed
	}
	p.piece, p.pieceOff, p.pieceLen = pieceLater, offset, n
	if offset == 0 {
		p.piece = pieceFirst
	}
	return 0
}

func (p *parsed) ipv6() reason {
	if !p.has(p.l3, 40) || p.frame[p.l3]>>4 != 6 {
		return rMalformed
	}
	ip := p.frame[p.l3:]
	total := 40 + int(p.be16(p.l3+4))
	if total > len(ip) {
		return rMalformed
	}
	p.from, p.to = addr(ip[8:24]), addr(ip[24:40])
	for _, host := range []addr{p.from, p.to} {
		embedded := bytes.Equal(host[:12], make([]byte, 12)) && !bytes.Equal(host[12:], make([]byte, 4))
		if isMapped(host) || embedded {
			return rMalformed
		}
	}
	if p.from[0] == 0xff || isNone(p.to) {
		return rMalformed
	}
	p.end, p.proto, p.hops, p.l4 = p.l3+total, ip[6], ip[7], p.l3+40
	if bad := p.extensions(); bad != 0 {
		return bad
	}
	if p.proto == 59 {
		return rUnparsed
	}
	return 0
}

func isExtension(proto uint8) bool {
	return proto == 0 || proto == 43 || proto == 44 || proto == 51 || proto == 60
}

func (p *parsed) extensions() reason {
	for n := 0; isExtension(p.proto); n++ {
		switch {
		case n == 8:
			return rUnparsed
		case p.piece == pieceLater:
			return 0
		case n > 0 && p.proto == 0:
			return rMalformed
		case p.l4+8 > p.end:
			return rMalformed
		}
		ext := p.frame[p.l4:]
		size := (int(ext[1]) + 1) * 8
		switch p.proto {
		case 43:
			if ext[3] != 0 {
				return rUnparsed
			}
		case 44:
			size = 8
		case 51:
			size = (int(ext[1]) + 2) * 4
		}
		if p.l4+size > p.end {
			return rMalformed
		}
		this := p.proto
		p.l4 += size
		p.proto = ext[0]
		if this == 44 {
			if p.piece != pieceNone {
				return rMalformed
			}
			p.pieceID, p.pieceProto = binary.BigEndian.Uint32(ext[4:]), ext[0]
			field := int(binary.BigEndian.Uint16(ext[2:]))
			if bad := p.fragment(field&^7, field&1 != 0); bad != 0 {
				return bad
			}
		}
	}
	return 0
}

type modelPieceKey struct {
	from, to addr
	id, vlan uint32
	proto    uint8
}

type modelHead struct {
	sport, dport uint16
	proto        uint8
	end          int
}

func (m *model) pieceKey(p *parsed) modelPieceKey {
	return modelPieceKey{p.from, p.to, p.pieceID, p.vlan, p.pieceProto}
}

// join gives a later fragment the ports of its head.
func (m *model) join(p *parsed) reason {
	if p.piece == pieceNone {
		return 0
	}
	if p.kind != kindFlow {
		return rFragment
	}
	if p.piece == pieceFirst {
		return 0
	}
	head, known := m.heads[m.pieceKey(p)]
	if !known || p.pieceOff < head.end {
		return rFragment
	}
	p.sport, p.dport, p.proto = head.sport, head.dport, head.proto
	head.end = p.pieceOff + p.pieceLen
	m.heads[m.pieceKey(p)] = head
	return 0
}

// transport reads what follows IP.
func (p *parsed) transport() reason {
	l4, n := p.frame[min(p.l4, len(p.frame)):], p.end-p.l4
	short := rMalformed
	if p.piece != pieceNone {
		short = rFragment
	}
	need := map[uint8]int{6: 20, 17: 8, 136: 8, 132: 12, 1: 8, 58: 8}[p.proto]
	if n < need {
		return short
	}
	ports := func() { p.sport, p.dport = binary.BigEndian.Uint16(l4), binary.BigEndian.Uint16(l4[2:]) }
	switch p.proto {
	case 6:
		if l4[12]>>4 < 5 {
			return rMalformed
		}
		if int(l4[12]>>4)*4 > n {
			return short
		}
		p.flags = l4[13]
		if p.flags&2 != 0 && p.flags&5 != 0 {
			return rMalformed
		}
		ports()
		p.seq = binary.BigEndian.Uint32(l4[4:])
	case 17:
		length := int(binary.BigEndian.Uint16(l4[4:]))
		if length < 8 || p.piece == pieceNone && length > n {
			return rMalformed
		}
		ports()
		p.kind = p.udpKind()
	case 136:
		covered := int(binary.BigEndian.Uint16(l4[4:]))
		if covered != 0 && (covered < 8 || p.piece == pieceNone && covered > n) {
			return rMalformed
		}
		ports()
	case 132:
		ports()
	case 1, 58:
		if (p.proto == 1) != (p.ethertype == 0x0800) {
			return rMalformed
		}
		p.icmp = l4[0]
		p.kind = p.icmpKind()
		if isEcho(p.proto, p.icmp) {
			p.sport = binary.BigEndian.Uint16(l4[4:])
			p.dport = p.sport
		}
	case 2:
		p.kind = kindGroup
	}
	return 0
}

func isEcho(proto, icmp uint8) bool {
	if proto == 1 {
		return icmp == 0 || icmp == 8
	}
	return icmp == 128 || icmp == 129
}

func (p *parsed) udpKind() modelKind {
	client, server := uint16(68), uint16(67)
	if p.ethertype == 0x86dd {
		client, server = 546, 547
	}
	switch [2]uint16{p.sport, p.dport} {
	case [2]uint16{client, server}:
		return kindDHCPClient
	case [2]uint16{server, client}:
		return kindDHCPServer
	}
	return kindFlow
}

func (p *parsed) icmpKind() modelKind {
	t := p.icmp
	switch {
	case p.proto == 1 && (t == 3 || t == 4 || t == 5 || t == 11 || t == 12):
		return kindError
	case p.proto == 1:
		return kindFlow
	case t >= 1 && t <= 4:
		return kindError
	case t >= 133 && t <= 137:
		return kindND
	case t >= 130 && t <= 132 || t == 143:
		return kindGroup
	}
	return kindFlow
}
