package bpf_test

import (
	"encoding/binary"

	"github.com/vmgate/vmgate/bpf"
)

const toRouter = bpf.VmgateMarkMARK_CONTROL_ROUTER

func (m *model) deliverControl(p *parsed) modelOutcome {
	out, bad := m.destination(p)
	if bad != 0 {
		return m.drop(p, bad)
	}
	return m.deliver(p, out, rControl)
}

// ask hands a question to the one who has the answer.
func (m *model) ask(p *parsed, mac macAdr) modelOutcome {
	out, bad := m.portTo(p, mac)
	switch {
	case bad == rUnknownDst:
		return m.flood(p, toRouter)
	case bad != 0:
		return m.drop(p, bad)
	case !m.mayLeaveBy(out):
		return m.drop(p, rAbsorbed)
	}
	copy(p.out, mac[:])
	p.dst = mac
	return m.deliver(p, out, rControl)
}

func (m *model) arp(p *parsed) modelOutcome {
	if !p.has(p.l3, 28) {
		return m.drop(p, rMalformed)
	}
	a := p.frame[p.l3:]
	op := binary.BigEndian.Uint16(a[6:])
	if string(a[:6]) != "\x00\x01\x08\x00\x06\x04" || op != 1 && op != 2 || macAdr(a[8:14]) != p.src {
		return m.drop(p, rLie)
	}
	p.from, p.to = mapped(a[14:18]), mapped(a[24:28])
	switch {
	case isNone(p.from) && op == 2:
		return m.drop(p, rLie)
	case !isNone(p.from) && !m.mayUse(p, p.from):
		return m.drop(p, rSpoof)
	case op == 2 && isGroup(p.dst):
		return m.flood(p, 0)
	case op == 2:
		return m.deliverControl(p)
	}
	holder := m.lookup(0, p.to)
	switch {
	case p.from == p.to:
		return m.flood(p, 0)
	case holder != nil && holder.of == p.vm:
		return m.drop(p, rAbsorbed)
	case holder != nil:
		if with, ok := m.answersFor(p, holder.mac); ok {
			return m.answered(p, holder.mac, with, func() {
				reply := p.out[p.l3:]
				copy(reply[6:], []byte{0, 2})
				copy(reply[8:], with[:])
				copy(reply[14:], p.to[12:])
				copy(reply[18:], p.src[:])
				copy(reply[24:], p.from[12:])
			})
		}
		return m.ask(p, holder.mac)
	case !isGroup(p.dst):
		return m.deliverControl(p)
	}
	return m.flood(p, toRouter)
}

// answersFor says with which MAC, if at all, the gateway answers for another.
func (m *model) answersFor(p *parsed, mac macAdr) (with macAdr, ok bool) {
	e, known := m.macs[p.macKey(mac)]
	if known && m.proxy && e.Port == m.port {
		return m.mac, true
	}
	return mac, known && m.answer
}

// answered turns the frame round, with what answer writes into it.
func (m *model) answered(p *parsed, holder, with macAdr, answer func()) modelOutcome {
	if _, bad := m.portTo(p, holder); bad != 0 {
		return m.drop(p, bad)
	}
	if answer == nil {
		return m.drop(p, rUnparsed)
	}
	answer()
	copy(p.out, p.src[:])
	copy(p.out[6:], with[:])
	p.answered = true
	return m.send(p, m.port, rAnswered)
}

func (m *model) nd(p *parsed) modelOutcome {
	header := map[uint8]int{133: 8, 134: 16, 135: 24, 136: 24}[p.icmp]
	if p.frame[p.l4+1] != 0 || header == 0 || p.hops != 255 || !p.ndOptions(header) {
		return m.drop(p, rLie)
	}
	switch p.icmp {
	case 134:
		switch {
		case p.vmFlags&bpf.VmgateVmFlagVM_ROUTER == 0 || !isLinkLocal(p.from):
			return m.drop(p, rLie)
		case isGroup(p.dst):
			return m.flood(p, 0)
		}
		return m.deliverControl(p)
	case 133:
		return m.flood(p, toRouter)
	}
	target := addr(p.frame[p.l4+8 : p.l4+24])
	if p.icmp == 136 {
		switch {
		case isNone(p.from) || isGroupAddr(target) || isNone(target):
			return m.drop(p, rLie)
		case !m.mayUse(p, target):
			return m.drop(p, rSpoof)
		case isGroup(p.dst):
			return m.flood(p, 0)
		case p.readdressed:
			return m.drop(p, rAbsorbed)
		}
		return m.deliverControl(p)
	}
	return m.solicit(p, target)
}

func (m *model) solicit(p *parsed, target addr) modelOutcome {
	holder := m.lookup(0, target)
	switch {
	case isGroupAddr(target):
		return m.drop(p, rLie)
	case holder != nil && holder.of == p.vm:
		return m.drop(p, rAbsorbed)
	case holder != nil:
		return m.answerOrAsk(p, holder.mac, target)
	case !isGroup(p.dst) && !p.readdressed:
		return m.deliverControl(p)
	}
	mac, ok := macInside(target)
	switch {
	case !ok:
		return m.flood(p, toRouter)
	case mac == p.src:
		return m.drop(p, rAbsorbed)
	}
	return m.answerOrAsk(p, mac, target)
}

// macInside is the MAC that a link-local address was made from.
func macInside(a addr) (macAdr, bool) {
	return macAdr{a[8] ^ 2, a[9], a[10], a[13], a[14], a[15]}, isLinkLocal(a) && a[11] == 0xff && a[12] == 0xfe
}

func (m *model) answerOrAsk(p *parsed, holder macAdr, target addr) modelOutcome {
	with, ok := m.answersFor(p, holder)
	if !ok {
		return m.ask(p, holder)
	}
	if isNone(p.from) {
		switch _, bad := m.portTo(p, holder); {
		case bad != 0:
			return m.drop(p, bad)
		case m.proxy:
			return m.drop(p, rAbsorbed)
		}
		return m.ask(p, holder)
	}
	n := p.end - p.l4
	if p.l4 != p.l3+40 || n != 24 && n != 32 {
		return m.answered(p, holder, with, nil)
	}
	return m.answered(p, holder, with, func() {
		ip, msg := p.out[p.l3:], p.out[p.l4:p.end]
		ip[7] = 255
		copy(ip[8:], target[:])
		copy(ip[24:], p.from[:])
		flags := byte(0x60)
		if m.vms[p.dstVM].Flags&bpf.VmgateVmFlagVM_ROUTER != 0 {
			flags |= 0x80
		}
		copy(msg, []byte{136, 0, 0, 0, flags})
		if n == 32 {
			copy(msg[24:], append([]byte{2, 1}, with[:]...))
		}
		binary.BigEndian.PutUint16(msg[2:], icmp6Sum(ip[8:40], msg))
	})
}

// icmp6Sum is the checksum of a message between two addresses (RFC 4443, 2.3).
func icmp6Sum(addrs, msg []byte) uint16 {
	sum := uint32(len(msg)) + 58
	for _, b := range [][]byte{addrs, msg} {
		for i := 0; i < len(b); i += 2 {
			sum += uint32(binary.BigEndian.Uint16(b[i:]))
		}
	}
	for sum>>16 != 0 {
		sum = sum&0xffff + sum>>16
	}
	return ^uint16(sum)
}

// ndOptions says whether the options fill the message and name no other MAC.
func (p *parsed) ndOptions(header int) bool {
	off := p.l4 + header
	for range 8 {
		if off >= p.end {
			break
		}
		if !p.has(off, 8) {
			return false
		}
		kind, units := p.frame[off], int(p.frame[off+1])
		if units == 0 || off+units*8 > p.end {
			return false
		}
		if kind == 1 || kind == 2 {
			if units != 1 || macAdr(p.frame[off+2:off+8]) != p.src || kind == 1 && isNone(p.from) {
				return false
			}
		}
		off += units * 8
	}
	return off == p.end
}

func (m *model) dhcp(p *parsed) modelOutcome {
	if p.kind == kindDHCPServer {
		switch {
		case p.vmFlags&bpf.VmgateVmFlagVM_DHCP_SERVER == 0:
			return m.drop(p, rLie)
		case isGroup(p.dst):
			return m.flood(p, 0)
		}
		return m.deliverControl(p)
	}
	if p.ethertype == 0x0800 {
		off := p.l4 + 8
		if !p.has(off, 44) || string(p.frame[off:off+3]) != "\x01\x01\x06" || macAdr(p.frame[off+28:off+34]) != p.src {
			return m.drop(p, rLie)
		}
	}
	if isGroup(p.dst) {
		return m.flood(p, toRouter)
	}
	return m.deliverControl(p)
}

func (m *model) icmpError(p *parsed) modelOutcome {
	if p.proto == 1 && p.icmp == 5 {
		return m.drop(p, rLie)
	}
	key, from, ok := p.quoted()
	if !ok {
		return m.drop(p, rRelated)
	}
	f := m.find(key)
	if f == nil || m.judge(f) == unsettled {
		return m.drop(p, rRelated)
	}
	out, bad := m.destination(p)
	if bad != 0 {
		return m.drop(p, bad)
	}
	return m.carryOut(p, m.judge(f), uint32(from) != f.f.Initiator, out, rControl)
}

// quoted reads the packet that an ICMP error is about; it must have been sent by
// the one whom the error goes to.
func (p *parsed) quoted() (key bpf.VmgateFlowKey, from int, ok bool) {
	off := p.l4 + 8
	var src, dst addr
	var proto uint8
	if p.ethertype == 0x0800 {
		if !p.has(off, 20) || p.frame[off]>>4 != 4 || p.frame[off]&15 < 5 || p.be16(off+6)&0x1fff != 0 {
			return key, 0, false
		}
		src, dst, proto = mapped(p.frame[off+12:]), mapped(p.frame[off+16:]), p.frame[off+9]
		off += int(p.frame[off]&15) * 4
	} else {
		if !p.has(off, 40) || p.frame[off]>>4 != 6 {
			return key, 0, false
		}
		src, dst, proto = addr(p.frame[off+8:off+24]), addr(p.frame[off+24:off+40]), p.frame[off+6]
		off += 40
	}
	if off+8 > p.end || src == dst || src != p.to {
		return key, 0, false
	}
	var sport, dport uint16
	switch proto {
	case 6, 17, 132, 136:
		sport, dport = p.be16(off), p.be16(off+2)
	case 1, 58:
		if isEcho(proto, p.frame[off]) {
			sport = p.be16(off + 4)
			dport = sport
		}
	}
	key, from = modelKey(src, dst, sport, dport, proto)
	key.Vlan, key.Group = p.vlan, group
	return key, from, true
}
