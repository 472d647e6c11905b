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
		return m.drop(p, rAbsorbed)
	case op == 2:
		return m.deliverControl(p)
	}
	holder := m.lookup(0, p.to)
	switch {
	case holder != nil && holder.of == p.vm, p.from == p.to:
		return m.drop(p, rAbsorbed)
	case holder != nil:
		return m.ask(p, holder.mac)
	case !isGroup(p.dst):
		return m.deliverControl(p)
	}
	return m.flood(p, toRouter)
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
		return m.ask(p, holder.mac)
	case !isGroup(p.dst):
		return m.deliverControl(p)
	case isLinkLocal(target) && target[11] == 0xff && target[12] == 0xfe:
		mac := macAdr{target[8] ^ 2, target[9], target[10], target[13], target[14], target[15]}
		if mac == p.src {
			return m.drop(p, rAbsorbed)
		}
		return m.ask(p, mac)
	}
	return m.flood(p, toRouter)
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
