package bpf_test

import (
	"encoding/binary"

	"github.com/vmgate/vmgate/bpf"
)

// model is the state of a gateway as the model knows it: what the daemon has
// written, and what frames have left behind. Times are ages in seconds.
type model struct {
	port      uint32 // also the segment's number
	mac       macAdr // of its device
	proxy     bool
	answer    bool
	multicast bool
	settings  bpf.VmgateSettings
	silent    bool // the daemon
	live      map[uint32]bool
	flags     map[uint32]bpf.VmgatePortFlag
	vms       map[uint32]bpf.VmgateVm
	macs      map[bpf.VmgateMacKey]bpf.VmgateMacEntry
	addrs     []modelPrefix
	rules     map[uint32]bpf.VmgateVerdict
	owners    map[uint32]bpf.VmgateVerdict
	verdicts  map[bpf.VmgateVerdictKey]bpf.VmgateVerdictEntry
	flows     map[bpf.VmgateFlowKey]*modelFlow
	pending   map[bpf.VmgateFlowKey]uint32 // packets punted
	heads     map[modelPieceKey]modelHead
	learned   map[uint32]*[2]int // IPv4, IPv6
}

type modelPrefix struct {
	vm, of uint32 // whose view (0 for all), whose it is
	addr   addr
	bits   int
	mac    macAdr
	port   uint32
}

type modelFlow struct {
	f       bpf.VmgateFlow
	age     [3]uint64 // of its making, and of what each end sent last
	expired bool      // by its own end
}

const never = ^uint64(0)

// lookup finds the longest prefix of a view that covers the address.
func (m *model) lookup(vm uint32, a addr) *modelPrefix {
	var best *modelPrefix
	for i := range m.addrs {
		p := &m.addrs[i]
		if p.vm == vm && covers(p.addr, p.bits, a) && (best == nil || p.bits > best.bits) {
			best = p
		}
	}
	return best
}

func covers(prefix addr, bits int, a addr) bool {
	for i := range bits {
		if (prefix[i/8]^a[i/8])>>(7-i%8)&1 != 0 {
			return false
		}
	}
	return true
}

func (m *model) mayUse(p *parsed, a addr) bool {
	own, holder := m.lookup(p.vm, a), m.lookup(0, a)
	switch {
	case holder != nil && holder.of != p.vm:
		return own != nil && own.bits >= holder.bits
	case own != nil || holder != nil:
		return true
	case isLinkLocal(a) || p.vmFlags&bpf.VmgateVmFlagVM_ROUTER != 0:
		return true
	case p.vmFlags&bpf.VmgateVmFlagVM_LEARN == 0:
		return false
	}
	n, family := m.learned[p.vm], 1
	if n == nil {
		n = &[2]int{}
		m.learned[p.vm] = n
	}
	if isMapped(a) {
		family = 0
	}
	if n[family] >= 16 {
		return false
	}
	n[family]++
	for _, view := range []uint32{0, p.vm} {
		m.addrs = append(m.addrs, modelPrefix{view, p.vm, a, 128, p.src, m.port})
	}
	return true
}

// stopped says whether a VM's own verdict ends the frame.
func (m *model) stopped(p *parsed, vm uint32) bool {
	v := m.vms[vm].Verdict
	if v == check {
		p.inspected = true
	}
	if v != drop {
		return false
	}
	if m.settings.Mode == bpf.VmgateModeMODE_MONITOR {
		p.monitored = true
		return false
	}
	return true
}

func (m *model) sender(p *parsed) reason {
	e, known := m.macs[p.macKey(p.src)]
	if !known {
		return rUnknownSrc
	}
	p.vm = e.Vm
	if e.Segment != m.port || e.Port != m.port {
		return rSpoof
	}
	p.vmFlags = m.vms[e.Vm].Flags
	if m.stopped(p, e.Vm) {
		return rVerdict
	}
	return 0
}

func (m *model) address(p *parsed) reason {
	if isNone(p.from) {
		if p.kind == kindND || p.kind == kindGroup || p.kind == kindDHCPClient {
			return 0
		}
		return rMalformed
	}
	if !m.mayUse(p, p.from) {
		return rSpoof
	}
	return 0
}

// portTo says where a MAC address is.
func (m *model) portTo(p *parsed, mac macAdr) (uint32, reason) {
	e, known := m.macs[p.macKey(mac)]
	if !known {
		return 0, rUnknownDst
	}
	p.dstVM = e.Vm
	if m.stopped(p, e.Vm) {
		return e.Port, rVerdict
	}
	return e.Port, 0
}

func (m *model) mayLeaveBy(port uint32) bool {
	return port != m.port || m.flags[port]&bpf.VmgatePortFlagPORT_REFLECT != 0
}

func (m *model) destination(p *parsed) (uint32, reason) {
	port, bad := m.portTo(p, p.dst)
	if bad == 0 && !m.mayLeaveBy(port) {
		bad = rUnknownDst
	}
	return port, bad
}

func (m *model) toIDS(p *parsed, fromInitiator bool, out uint32) modelOutcome {
	side := m.settings.Ids[0].Out
	if fromInitiator {
		side = m.settings.Ids[0].In
	}
	switch {
	case m.settings.Ids[0].State == bpf.VmgateIdsStateIDS_DOWN_OPEN:
		return m.send(p, out, rOpen)
	case m.settings.Ids[0].State != bpf.VmgateIdsStateIDS_UP || side == 0:
		return m.drop(p, rIDSDown)
	}
	return m.send(p, side, rCheck)
}

// deliver sends what has no flow.
func (m *model) deliver(p *parsed, out uint32, r reason) modelOutcome {
	switch {
	case p.monitored, p.inspected && m.settings.Mode == bpf.VmgateModeMODE_MONITOR:
		return m.send(p, out, rMonitor)
	case p.inspected:
		return m.toIDS(p, macOrder(p.src) < macOrder(p.dst), out)
	}
	return m.send(p, out, r)
}

// macOrder is what the sides of the IDS go by.
func macOrder(mac macAdr) uint64 {
	le := binary.LittleEndian.Uint16
	return uint64(le(mac[0:]))<<32 | uint64(le(mac[2:]))<<16 | uint64(le(mac[4:]))
}

func (m *model) carryOut(p *parsed, v bpf.VmgateVerdict, fromInitiator bool, out uint32, r reason) modelOutcome {
	switch {
	case v == forward:
		return m.send(p, out, r)
	case m.settings.Mode == bpf.VmgateModeMODE_MONITOR:
		return m.send(p, out, rMonitor)
	case v == check:
		return m.toIDS(p, fromInitiator, out)
	}
	return m.drop(p, rVerdict)
}

func (m *model) find(key bpf.VmgateFlowKey) *modelFlow {
	f := m.flows[key]
	if f == nil || f.expired {
		return nil
	}
	limit := m.settings.OtherIdle
	a, b := f.f.Dir[0].TcpFlags, f.f.Dir[1].TcpFlags
	switch {
	case key.Proto == 17 || key.Proto == 136:
		limit = m.settings.UdpIdle
	case key.Proto == 6 && a&b&0x10 != 0 && (a|b)&5 == 0:
		limit = m.settings.TcpEstablished
	case key.Proto == 6:
		limit = m.settings.TcpTransient
	}
	if min(f.age[0], f.age[1], f.age[2]) > limit/second {
		return nil
	}
	return f
}

// judge is the strictest verdict; undecided if anything is and nothing says drop.
// A flow that was found clean need not be checked.
func (m *model) judge(f *modelFlow) bpf.VmgateVerdict {
	all := []bpf.VmgateVerdict{f.f.Verdict, m.rules[f.f.Rule]}
	for _, d := range f.f.Dir {
		all = append(all, m.vms[d.Vm].Verdict, m.owners[d.Owner])
	}
	worst, open := forward, false
	for _, v := range all {
		worst = max(worst, v)
		open = open || v == unsettled
	}
	if open && worst != drop {
		return unsettled
	}
	if worst == check && f.f.Cleared != 0 {
		return forward
	}
	return worst
}

const unsettled = bpf.VmgateVerdictVERDICT_UNDECIDED

func (m *model) established(p *parsed) (modelOutcome, bool) {
	f := m.find(p.key)
	if f == nil {
		return modelOutcome{}, false
	}
	d, bareSYN := &f.f.Dir[p.fromIndex], p.proto == 6 && p.flags&0x12 == 2
	sameSYN := f.f.Initiator == uint32(p.fromIndex) && f.f.SynSeq != 0 && f.f.SynSeq == be32(p.seq)
	if d.SrcMac != p.src || d.DstMac != p.dst || uint32(d.InPort) != m.port || bareSYN && !sameSYN {
		return modelOutcome{}, false
	}
	v := m.judge(f)
	if v == unsettled {
		return modelOutcome{}, false
	}
	d.Packets++
	d.Bytes += uint64(len(p.frame))
	d.TcpFlags |= uint32(p.flags)
	f.age[1+p.fromIndex] = 0
	return m.carryOut(p, v, f.f.Initiator == uint32(p.fromIndex), uint32(d.OutPort), rForward), true
}

func (m *model) portStopped(vm uint32, port uint16, proto uint8) bool {
	e := m.verdicts[bpf.VmgateVerdictKey{Vm: vm, Port: port, Proto: proto}]
	return e.Verdict == drop && m.settings.Mode != bpf.VmgateModeMODE_MONITOR
}

func (m *model) undecided(p *parsed) modelOutcome {
	if isGroup(p.dst) || isGroupAddr(p.to) {
		watched := p.inspected && m.settings.Mode != bpf.VmgateModeMODE_MONITOR
		if m.multicast && isGroup(p.dst) && isGroupAddr(p.to) && !watched {
			return m.flood(p, 0)
		}
		return m.drop(p, rMulticast)
	}
	out, bad := m.destination(p)
	if bad != 0 {
		return m.drop(p, bad)
	}
	if m.portStopped(p.vm, p.sport, p.proto) || m.portStopped(p.dstVM, p.dport, p.proto) {
		return m.drop(p, rVerdict)
	}
	switch {
	case !m.silent:
		return m.hold(p)
	case m.settings.NewFlowsOpen == 0:
		return m.drop(p, rDaemonDown)
	case out == 0:
		return m.up(p, bpf.VmgateMarkMARK_OPEN, rOpen)
	}
	return m.deliver(p, out, rOpen)
}

func (m *model) hold(p *parsed) modelOutcome {
	punted, there := m.pending[p.key]
	switch {
	case there && !p.queueable:
		return m.drop(p, rUndecidable)
	case punted >= m.settings.HeldPerFlow:
		return m.drop(p, rHeld)
	}
	m.pending[p.key]++
	if !p.queueable {
		return m.drop(p, rUndecidable)
	}
	return m.up(p, bpf.VmgateMarkMARK_PUNT|bpf.VmgateMark(p.vlan>>16&0xfff), rPunt)
}
