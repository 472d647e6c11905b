package bpf_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net/netip"

	"github.com/cilium/ebpf"

	"github.com/vmgate/vmgate/bpf"
)

func be16(v uint16) uint16 {
	var b [2]byte
	binary.BigEndian.PutUint16(b[:], v)
	return binary.NativeEndian.Uint16(b[:])
}

func be32(v uint32) uint32 {
	var b [4]byte
	binary.BigEndian.PutUint32(b[:], v)
	return binary.NativeEndian.Uint32(b[:])
}

// keyOf is an independent statement of how flow keys are made.
func keyOf(proto uint8, vlan uint32, src netip.Addr, sport uint16, dst netip.Addr, dport uint16) (bpf.VmgateFlowKey, int) {
	a, b := src.As16(), dst.As16()
	from := 0
	if bytes.Compare(a[:], b[:]) > 0 {
		a, b, sport, dport, from = b, a, dport, sport, 1
	}
	return bpf.VmgateFlowKey{
		Addr: [2][16]byte{a, b}, Port: [2]uint16{be16(sport), be16(dport)},
		Vlan: vlan, Proto: proto, Group: group,
	}, from
}

// decide writes the flow as the daemon does: from app1 to web, forwarded, under
// the rule and with an owner at each end.
func (g *gateway) decide(proto uint8, vlan uint32, src netip.Addr, sport uint16, dst netip.Addr, dport uint16, change func(*bpf.VmgateFlow)) bpf.VmgateFlowKey {
	g.Helper()
	key, from := keyOf(proto, vlan, src, sport, dst, dport)
	var f bpf.VmgateFlow
	f.Created = now()
	f.Verdict = bpf.VmgateVerdictVERDICT_FORWARD
	f.Rule = theRule
	f.Initiator = uint32(from)
	there, back := &f.Dir[from], &f.Dir[1-from]
	there.SrcMac, there.DstMac = [6]byte(macApp1), [6]byte(macWeb)
	there.InPort, there.OutPort, there.Vm, there.Owner = portApp, portWeb, idApp1, ownerApp
	back.SrcMac, back.DstMac = [6]byte(macWeb), [6]byte(macApp1)
	back.InPort, back.OutPort, back.Vm, back.Owner = portWeb, portApp, idWeb, ownerWeb
	if change != nil {
		change(&f)
	}
	g.put("flows", key, f)
	return key
}

func (g *gateway) flow(key bpf.VmgateFlowKey) bpf.VmgateFlow {
	g.Helper()
	var f bpf.VmgateFlow
	if err := g.maps["flows"].Lookup(key, &f); err != nil {
		g.Fatalf("flow: %v", err)
	}
	return f
}

// pending returns the pending entry of key, nil if there is none.
func (g *gateway) pending(key bpf.VmgateFlowKey) *bpf.VmgatePending {
	g.Helper()
	var p bpf.VmgatePending
	err := g.maps["pending"].Lookup(key, &p)
	if errors.Is(err, ebpf.ErrKeyNotExist) {
		return nil
	}
	if err != nil {
		g.Fatal(err)
	}
	return &p
}
