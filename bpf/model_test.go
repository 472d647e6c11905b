package bpf_test

import (
	"bytes"
	"encoding/binary"

	"github.com/vmgate/vmgate/bpf"
)

// The model: what becomes of a frame, in plain Go, as a reader of the design
// would write it down. It shares no code with the programs and knows nothing of
// hooks, maps or verifiers. A field that is missing in a frame is an index out of
// range, and is caught where the layer is read.

type (
	addr   = [16]byte
	macAdr = [6]byte
	reason = bpf.VmgateReason
)

// The reasons, in short.
const (
	rForward     = bpf.VmgateReasonREASON_FORWARD
	rCheck       = bpf.VmgateReasonREASON_CHECK
	rPunt        = bpf.VmgateReasonREASON_PUNT
	rControl     = bpf.VmgateReasonREASON_CONTROL
	rAbsorbed    = bpf.VmgateReasonREASON_CONTROL_ABSORBED
	rOpen        = bpf.VmgateReasonREASON_OPEN
	rMonitor     = bpf.VmgateReasonREASON_MONITOR
	rVerdict     = bpf.VmgateReasonREASON_DROP_VERDICT
	rMalformed   = bpf.VmgateReasonREASON_DROP_MALFORMED
	rUnparsed    = bpf.VmgateReasonREASON_DROP_UNPARSED
	rEthertype   = bpf.VmgateReasonREASON_DROP_ETHERTYPE
	rLLC         = bpf.VmgateReasonREASON_DROP_LLC
	rFragment    = bpf.VmgateReasonREASON_DROP_FRAGMENT
	rAnswered    = bpf.VmgateReasonREASON_CONTROL_ANSWERED
	rUnknownSrc  = bpf.VmgateReasonREASON_DROP_UNKNOWN_SOURCE
	rSpoof       = bpf.VmgateReasonREASON_DROP_SPOOF
	rUnknownDst  = bpf.VmgateReasonREASON_DROP_UNKNOWN_DEST
	rMulticast   = bpf.VmgateReasonREASON_DROP_MULTICAST
	rLie         = bpf.VmgateReasonREASON_DROP_CONTROL
	rHeld        = bpf.VmgateReasonREASON_DROP_HELD
	rDaemonDown  = bpf.VmgateReasonREASON_DROP_DAEMON_DOWN
	rIDSDown     = bpf.VmgateReasonREASON_DROP_IDS_DOWN
	rUndecidable = bpf.VmgateReasonREASON_DROP_UNDECIDABLE
	rRelated     = bpf.VmgateReasonREASON_DROP_RELATED
)

// modelOutcome is what the model says becomes of a frame.
type modelOutcome struct {
	action uint32 // XDP's
	reason reason
	mark   bpf.VmgateMark // of what goes up
	out    []byte         // the frame as it leaves
	passed bool           // it was to go on, though its way out may have no device
}

// parsed is a frame as the model reads it.
type parsed struct {
	frame []byte
	out   []byte

	src, dst  macAdr
	vlan      uint32
	ethertype uint16
	l3        int
	queueable bool

	from, to    addr
	proto       uint8
	hops        uint8
	l4, end     int
	sport       uint16
	dport       uint16
	kind        modelKind
	icmp        uint8
	flags       uint8
	seq         uint32
	piece       modelPiece
	pieceOff    int
	pieceLen    int
	pieceID     uint32
	pieceProto  uint8
	key         bpf.VmgateFlowKey
	fromIndex   int
	vm, dstVM   uint32
	inspected   bool
	monitored   bool
	vmFlags     bpf.VmgateVmFlag
	readdressed bool // for the proxy, and meant for dst
	answered    bool
}

type modelKind int

const (
	kindOther modelKind = iota
	kindFlow
	kindARP
	kindND
	kindGroup
	kindDHCPClient
	kindDHCPServer
	kindError
)

type modelPiece int

const (
	pieceNone modelPiece = iota
	pieceFirst
	pieceLater
)

func (m *model) drop(p *parsed, r reason) modelOutcome {
	return modelOutcome{action: xdpDrop, reason: r, out: p.out}
}

func (m *model) up(p *parsed, mark bpf.VmgateMark, r reason) modelOutcome {
	m.rewrite(p, false)
	return modelOutcome{action: xdpPass, reason: r, mark: mark, out: p.out, passed: true}
}

// rewrite puts the MACs in that a proxy's frames leave with.
func (m *model) rewrite(p *parsed, back bool) {
	if !m.proxy || p.answered || !p.readdressed && !back {
		return
	}
	copy(p.out, p.dst[:])
	if back {
		copy(p.out[6:], m.mac[:])
	}
}

// send is a redirect, if the port has a device.
func (m *model) send(p *parsed, port uint32, r reason) modelOutcome {
	m.rewrite(p, port == m.port)
	o := modelOutcome{action: xdpRedirect, reason: r, out: p.out, passed: true}
	if !m.live[port] {
		o.action, o.reason = xdpDrop, rUnknownDst
	}
	return o
}

// classify is the whole of it.
func (m *model) classify(frame []byte) modelOutcome {
	p := &parsed{frame: frame, out: bytes.Clone(frame)}
	bad := p.ethernet()
	switch {
	case m.settings.Mode == bpf.VmgateModeMODE_CLOSE:
		return m.drop(p, rVerdict)
	case bad != 0:
		return m.drop(p, bad)
	case m.settings.Mode == bpf.VmgateModeMODE_OPEN:
		p.answered = true // as it came
		to, known := m.macs[p.macKey(p.dst)]
		if !known || to.Port == 0 || isGroup(p.dst) {
			return m.up(p, bpf.VmgateMarkMARK_OPEN, rOpen)
		}
		return m.send(p, to.Port, rOpen)
	}
	switch p.ethertype {
	case 0x0800, 0x86dd:
		return m.ip(p)
	case 0x0806:
		p.kind = kindARP
	}
	return m.examine(p)
}

func (p *parsed) be16(off int) uint16 { return binary.BigEndian.Uint16(p.frame[off:]) }
func (p *parsed) has(off, n int) bool { return off+n <= len(p.frame) }

func (p *parsed) macKey(mac macAdr) bpf.VmgateMacKey {
	return bpf.VmgateMacKey{Vlan: p.vlan, Mac: mac, Group: group}
}

func isGroup(mac macAdr) bool { return mac[0]&1 != 0 }

func isTag(t uint16) bool { return t == 0x8100 || t == 0x88a8 }

func (p *parsed) ethernet() reason {
	p.src, p.dst = macAdr(p.frame[6:12]), macAdr(p.frame[0:6])
	p.ethertype, p.l3, p.queueable = p.be16(12), 14, true
	if isGroup(p.src) {
		return rMalformed
	}
	for tags := 0; isTag(p.ethertype); tags++ {
		if tags == 2 {
			return rUnparsed
		}
		if !p.has(p.l3, 4) {
			return rMalformed
		}
		if tags == 1 || p.ethertype == 0x88a8 {
			p.queueable = false
		}
		p.vlan |= uint32(p.be16(p.l3)&0xfff) << (16 - 16*tags)
		p.ethertype = p.be16(p.l3 + 2)
		p.l3 += 4
	}
	switch {
	case p.ethertype >= 0x600:
		return 0
	case p.ethertype > 1500:
		return rEthertype
	case p.l3+int(p.ethertype) > len(p.frame):
		return rMalformed
	}
	return rLLC
}

func (m *model) ip(p *parsed) modelOutcome {
	if bad := m.flowOf(p); bad != 0 {
		return m.drop(p, bad)
	}
	m.receiver(p)
	if p.kind == kindDHCPClient && !isGroup(p.dst) && !m.isServer(p, p.dst) {
		p.kind = kindFlow
	}
	o, done := modelOutcome{}, false
	if p.kind == kindFlow {
		o, done = m.established(p)
	}
	if !done {
		o = m.examine(p)
	}
	if p.piece == pieceFirst && o.passed {
		m.heads[m.pieceKey(p)] = modelHead{p.sport, p.dport, p.proto, p.pieceLen}
	}
	return o
}

// receiver finds whom a frame to the proxy is for.
func (m *model) receiver(p *parsed) {
	if !m.proxy || p.dst != m.mac {
		return
	}
	if holder := m.lookup(0, p.to); holder != nil {
		p.dst, p.readdressed = holder.mac, true
	} else if mac, ok := macInside(p.to); ok {
		p.dst, p.readdressed = mac, true
	}
}

func (m *model) isServer(p *parsed, mac macAdr) bool {
	e, known := m.macs[p.macKey(mac)]
	return known && m.vms[e.Vm].Flags&bpf.VmgateVmFlagVM_DHCP_SERVER != 0
}

func (m *model) examine(p *parsed) modelOutcome {
	if bad := m.sender(p); bad != 0 {
		return m.drop(p, bad)
	}
	switch p.kind {
	case kindARP:
		return m.arp(p)
	case kindOther:
		return m.drop(p, rEthertype)
	}
	if bad := m.address(p); bad != 0 {
		return m.drop(p, bad)
	}
	switch p.kind {
	case kindND:
		return m.nd(p)
	case kindGroup:
		if !isGroup(p.dst) || !isGroupAddr(p.to) {
			return m.drop(p, rLie)
		}
		return m.flood(p, bpf.VmgateMarkMARK_CONTROL_ROUTER)
	case kindDHCPClient, kindDHCPServer:
		return m.dhcp(p)
	case kindError:
		return m.icmpError(p)
	}
	return m.undecided(p)
}

func (m *model) flood(p *parsed, where bpf.VmgateMark) modelOutcome {
	return m.up(p, bpf.VmgateMarkMARK_CONTROL|where, rControl)
}
