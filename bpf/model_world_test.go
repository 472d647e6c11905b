package bpf_test

import (
	"math/rand/v2"
	"net"
	"net/netip"

	"github.com/vmgate/vmgate/bpf"
)

var (
	worldVLANs = []uint32{0, 5 << 16, 5<<16 | 6}
	worldMACs  = []net.HardwareAddr{macApp1, macWeb, macApp2, macRouter}
	worldHome  = map[string]struct{ vm, port uint32 }{
		string(macApp1): {idApp1, portApp}, string(macWeb): {idWeb, portWeb},
		string(macApp2): {idApp2, portApp}, string(macRouter): {idRouter, portRouter},
	}
	worldAddrs = map[string][]netip.Addr{
		string(macApp1): {app1, app16}, string(macWeb): {web, web6}, string(macApp2): {app2, app26}, string(macRouter): {gw},
	}
	worldPorts = []uint16{1, 2, 80, 67, 68, 546, 547}
)

func pick[T any](r *rand.Rand, from ...T) T { return from[r.IntN(len(from))] }

func chance(r *rand.Rand, percent int) bool { return r.IntN(100) < percent }

// newWorld makes up what a daemon may have written. Most of it is in order, so
// that frames get far; each part is out of order now and then.
func newWorld(r *rand.Rand) *model {
	m := &model{
		port: portApp, silent: chance(r, 20),
		live: map[uint32]bool{}, flags: map[uint32]bpf.VmgatePortFlag{},
		vms: map[uint32]bpf.VmgateVm{0: {Verdict: forward}}, macs: map[bpf.VmgateMacKey]bpf.VmgateMacEntry{},
		rules: map[uint32]bpf.VmgateVerdict{}, owners: map[uint32]bpf.VmgateVerdict{0: forward},
		verdicts: map[bpf.VmgateVerdictKey]bpf.VmgateVerdictEntry{},
		flows:    map[bpf.VmgateFlowKey]*modelFlow{}, pending: map[bpf.VmgateFlowKey]uint32{},
		heads: map[modelPieceKey]modelHead{}, learned: map[uint32]*[2]int{},
		settings: bpf.VmgateSettings{
			Mode: bpf.VmgateMode(0), HeldPerFlow: uint32(r.IntN(4)), HeartbeatTimeout: 1000 * second, PendingTimeout: 1000 * second,
			TcpEstablished: 1000 * second, TcpTransient: 30 * second, UdpIdle: 60 * second, OtherIdle: 20 * second,
		},
	}
	m.settings.Ids[0].In, m.settings.Ids[0].Out = portIDSIn, portIDSOut
	if chance(r, 15) {
		m.settings.Mode = pick(r, bpf.VmgateModeMODE_MONITOR, bpf.VmgateModeMODE_MONITOR, bpf.VmgateModeMODE_CLOSE, bpf.VmgateModeMODE_OPEN)
	}
	if chance(r, 20) {
		m.settings.Ids[0].State = pick(r, bpf.VmgateIdsStateIDS_DOWN_CLOSED, bpf.VmgateIdsStateIDS_DOWN_OPEN)
	}
	if chance(r, 10) {
		m.settings.Ids[0].In = 0
	}
	m.settings.NewFlowsOpen = uint32(r.IntN(2))
	for _, port := range devices {
		m.live[port] = chance(r, 90)
		if chance(r, 30) {
			m.flags[port] = bpf.VmgatePortFlagPORT_REFLECT
		}
	}
	for id := uint32(idApp1); id <= idRouter; id++ {
		vm := bpf.VmgateVm{Verdict: someVerdict(r, 92), Budget: 1e6}
		if id == idRouter || chance(r, 15) {
			vm.Flags = bpf.VmgateVmFlag(r.IntN(8))
		}
		m.vms[id] = vm
	}
	m.rules[theRule], m.owners[ownerApp], m.owners[ownerWeb] = someVerdict(r, 85), someVerdict(r, 85), someVerdict(r, 85)
	m.inventory(r)
	for range r.IntN(4) {
		key := bpf.VmgateVerdictKey{Vm: uint32(1 + r.IntN(4)), Port: pick(r, worldPorts...), Proto: pick[uint8](r, 6, 17)}
		m.verdicts[key] = bpf.VmgateVerdictEntry{Verdict: pick(r, forward, check, drop)}
	}
	for range 5 + r.IntN(15) {
		m.someFlow(r)
	}
	return m
}

func someVerdict(r *rand.Rand, forwardPercent int) bpf.VmgateVerdict {
	if chance(r, forwardPercent) {
		return forward
	}
	return pick(r, unsettled, check, drop)
}

func (m *model) inventory(r *rand.Rand) {
	for _, mac := range worldMACs {
		home := worldHome[string(mac)]
		for _, v := range worldVLANs {
			if v == 0 || chance(r, 80) {
				m.macs[bpf.VmgateMacKey{Vlan: v, Mac: macAdr(mac), Group: group}] =
					bpf.VmgateMacEntry{Vm: home.vm, Segment: home.port, Port: home.port}
			}
		}
		for _, a := range worldAddrs[string(mac)] {
			if chance(r, 90) {
				m.give(home.vm, host(a), mac, home.port)
			}
		}
	}
	if chance(r, 30) {
		m.give(idApp1, netip.MustParsePrefix("2001:db8::/64"), macApp1, portApp)
	}
	if chance(r, 30) {
		m.give(idWeb, netip.MustParsePrefix("10.0.0.0/29"), macWeb, portWeb)
	}
}

func (m *model) give(vm uint32, p netip.Prefix, mac net.HardwareAddr, port uint32) {
	bits := p.Bits()
	if p.Addr().Is4() {
		bits += 96
	}
	for _, view := range []uint32{0, vm} {
		m.addrs = append(m.addrs, modelPrefix{view, vm, p.Addr().As16(), bits, macAdr(mac), port})
	}
}

func (m *model) someFlow(r *rand.Rand) {
	a, b := pick(r, worldMACs[0], worldMACs[2], worldMACs[1]), pick(r, worldMACs...)
	family := r.IntN(2)
	if len(worldAddrs[string(a)]) <= family || len(worldAddrs[string(b)]) <= family || a.String() == b.String() {
		return
	}
	proto := pick[uint8](r, 6, 6, 17, 17, 136, 132, 1, 58, 47, 50)
	if proto == 1 && family == 1 || proto == 58 && family == 0 {
		return
	}
	sport, dport := pick(r, worldPorts...), pick(r, worldPorts...)
	switch proto {
	case 1, 58:
		dport = sport
	case 47, 50:
		sport, dport = 0, 0
	}
	key, from := keyOf(proto, pick(r, worldVLANs...), worldAddrs[string(a)][family], sport, worldAddrs[string(b)][family], dport)
	f := &modelFlow{age: [3]uint64{someAge(r), never, never}, expired: chance(r, 3)}
	f.f.Verdict, f.f.Rule, f.f.Initiator = someVerdict(r, 90), theRule, uint32(pick(r, from, from, 1-from))
	f.f.SynSeq = pick[uint32](r, 0, 7)
	f.f.Cleared = uint32(r.IntN(2))
	ha, hb := worldHome[string(a)], worldHome[string(b)]
	there, back := &f.f.Dir[from], &f.f.Dir[1-from]
	there.SrcMac, there.DstMac, there.InPort, there.OutPort, there.Vm = macAdr(a), macAdr(b), uint16(ha.port), uint16(hb.port), ha.vm
	back.SrcMac, back.DstMac, back.InPort, back.OutPort, back.Vm = macAdr(b), macAdr(a), uint16(hb.port), uint16(ha.port), hb.vm
	there.Owner, back.Owner = pick[uint32](r, 0, ownerApp), pick[uint32](r, 0, ownerWeb)
	for i := range f.f.Dir {
		f.f.Dir[i].TcpFlags = pick[uint32](r, 0, 2, 0x10, 0x12, 0x10, 0x11, 0x14)
		if chance(r, 50) {
			f.age[1+i] = someAge(r)
		}
	}
	m.flows[key] = f
}

// budgetsOfAVM is BUDGETS of packet.h; the last one is that of control traffic.
const budgetsOfAVM = 17

// someAge is far from every idle time, and no greater than the machine's.
func someAge(r *rand.Rand) uint64 {
	age := pick[uint64](r, 0, 0, 0, 10, 50, 500)
	if age*2 > now()/second {
		return 0
	}
	return age
}

// load writes the model's state into a gateway's maps, in the place of what is there.
func (g *gateway) load(m *model) {
	g.Helper()
	for _, name := range []string{"vm_macs", "vm_addrs", "verdicts", "flows", "pending", "fragments"} {
		g.empty(name)
	}
	t := now()
	g.put("settings", uint32(0), m.settings)
	if m.silent {
		g.beat(0)
	} else {
		g.beat(t)
	}
	for _, port := range devices {
		p := bpf.VmgatePort{Flags: m.flags[port]}
		if m.live[port] {
			p.Ifindex = loopback
			g.put("tx_ports", port, uint32(loopback))
		} else {
			_ = g.maps["tx_ports"].Delete(port) // it may be missing already
		}
		g.put("ports", port, p)
	}
	for id, vm := range m.vms {
		g.put("vms", id, vm)
		g.put("learned", id, bpf.VmgateLearned{})
		g.put("budgets", id*budgetsOfAVM+budgetsOfAVM-1, bpf.VmgateBudget{})
	}
	for id, v := range m.owners {
		g.put("owners", id, bpf.VmgateOwner{Verdict: v})
	}
	for id, v := range m.rules {
		g.put("rules", id, bpf.VmgateRule{Verdict: v})
	}
	for k, e := range m.macs {
		g.put("vm_macs", k, e)
	}
	for _, p := range m.addrs {
		key := addrKey(p.vm, netip.PrefixFrom(netip.AddrFrom16(p.addr), p.bits))
		g.put("vm_addrs", key, bpf.VmgateAddrEntry{Vm: p.of, Port: p.port, Mac: p.mac, Bits: uint16(p.bits)})
	}
	for k, e := range m.verdicts {
		g.put("verdicts", k, e)
	}
	for k, f := range m.flows {
		w := f.f
		w.Created = ago(t, f.age[0])
		for i := range w.Dir {
			w.Dir[i].LastSeen = ago(t, f.age[1+i])
		}
		if f.expired {
			w.Expires = t - second
		}
		g.put("flows", k, w)
	}
}

func ago(t, age uint64) uint64 {
	if age == never || age*second > t {
		return 0
	}
	return t - age*second
}
