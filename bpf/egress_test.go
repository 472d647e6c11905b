package bpf_test

import (
	"bytes"
	"encoding/binary"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/google/gopacket/layers"

	"github.com/vmgate/vmgate/bpf"
)

// skbContext is struct __sk_buff as far as a test run sets it.
type skbContext struct {
	Len, PktType, Mark uint32
	_                  [9]uint32
	CB                 [5]uint32
	_                  [31]uint32
}

func skbRun(frame []byte, mark bpf.VmgateMark) *ebpf.RunOptions {
	return &ebpf.RunOptions{Data: frame, DataOut: make([]byte, len(frame)+64), Context: skbContext{Mark: uint32(mark)}, Repeat: 1}
}

// tc sends one frame through a TC program with a mark on it and returns the
// action and the mark it leaves with.
func (g *gateway) tc(program string, frame []byte, mark bpf.VmgateMark) (uint32, uint32) {
	g.Helper()
	in, out := skbContext{Mark: uint32(mark)}, skbContext{}
	opts := ebpf.RunOptions{Data: frame, DataOut: make([]byte, len(frame)+64), Context: in, ContextOut: &out, Repeat: 1}
	action, err := g.progs[program].Run(&opts)
	if err != nil {
		g.Fatalf("run %s: %v", program, err)
	}
	if !bytes.Equal(opts.DataOut, frame) {
		g.Errorf("left as % x, want % x", opts.DataOut, frame)
	}
	return action, out.Mark
}

func (g *gateway) expectTC(program string, frame []byte, mark bpf.VmgateMark, action uint32, reason bpf.VmgateReason, markOut bpf.VmgateMark) {
	g.Helper()
	before := g.counters(g.port)
	got, left := g.tc(program, frame, mark)
	counted := diff(before, g.counters(g.port))
	if got != action || left != uint32(markOut) {
		g.Errorf("action %d with mark %#x, want %d with %#x", got, left, action, markOut)
	}
	want := bpf.VmgateCounter{Packets: 1, Bytes: uint64(len(frame))}
	if len(counted) != 1 || counted[reason] != want {
		g.Errorf("counted %v, want one for reason %d", counted, reason)
	}
}

func TestEgress(t *testing.T) {
	const (
		markForward  = bpf.VmgateMarkMARK_FORWARD
		markControl  = bpf.VmgateMarkMARK_CONTROL
		markRouters  = bpf.VmgateMarkMARK_CONTROL | bpf.VmgateMarkMARK_CONTROL_ROUTER
		markOpen     = bpf.VmgateMarkMARK_OPEN
		markIn       = bpf.VmgateMarkMARK_CHECK_IN
		markOut      = bpf.VmgateMarkMARK_CHECK_OUT
		denied       = bpf.VmgateReasonREASON_DROP_EGRESS
		sent         = bpf.VmgateReasonREASON_EGRESS
		turned       = bpf.VmgateReasonREASON_EGRESS_CHECK
		stopped      = bpf.VmgateReasonREASON_DROP_VERDICT
		down         = bpf.VmgateReasonREASON_DROP_IDS_DOWN
		open         = bpf.VmgateReasonREASON_OPEN
		kept         = bpf.VmgateReasonREASON_CONTROL_ABSORBED
		noticed      = bpf.VmgateReasonREASON_MONITOR
		unmarked     = bpf.VmgateMark(0)
		someoneElses = bpf.VmgateMark(0x42)
	)
	g := newGateway(t)
	g.macAt(5<<16, macApp1, idApp1, portApp)
	plain := tcpApp1ToWeb(tcp(1, 80, syn(1))).build(t)
	tagged := tcpApp1ToWeb(tcp(1, 80, syn(1))).with(func(p *packet) { p.tags = []layers.Dot1Q{{VLANIdentifier: 5}} }).build(t)
	query := arp(macApp1, broadcast, 1, macApp1, app1, nil, far).build(t)
	ids := func(state bpf.VmgateIdsState) func(*gateway) {
		return func(g *gateway) { g.set(func(s *bpf.VmgateSettings) { s.Ids[0].State = state }) }
	}
	mode := func(m bpf.VmgateMode) func(*gateway) { return func(g *gateway) { g.mode(m) } }
	isolate := func(id uint32) func(*gateway) { return func(g *gateway) { g.vmVerdict(id, drop) } }
	for name, c := range map[string]struct {
		frame   []byte
		mark    bpf.VmgateMark
		action  uint32
		reason  bpf.VmgateReason
		markOut bpf.VmgateMark
		prepare func(*gateway)
	}{
		"no mark":                           {plain, unmarked, tcShot, denied, unmarked, nil},
		"a firewall's mark":                 {plain, someoneElses, tcShot, denied, someoneElses, nil},
		"still undecided":                   {plain, bpf.VmgateMarkMARK_PUNT | 5, tcShot, denied, bpf.VmgateMarkMARK_PUNT | 5, nil},
		"a class that is none":              {plain, 0xaf000000, tcShot, denied, 0xaf000000, nil},
		"released":                          {plain, markForward, tcOK, sent, markForward, nil},
		"released, tagged":                  {tagged, markForward, tcOK, sent, markForward, nil},
		"control for all":                   {query, markControl, tcOK, sent, markControl, nil},
		"control for routers, none here":    {query, markRouters, tcShot, kept, markRouters, nil},
		"control for routers":               {query, markRouters, tcOK, sent, markRouters, func(g *gateway) { g.portFlags(portApp, bpf.VmgatePortFlagPORT_HAS_ROUTER) }},
		"the operator chose open":           {plain, markOpen, tcOK, open, markOpen, nil},
		"to be checked":                     {plain, markIn, tcRedirect, turned, unmarked, nil},
		"to be checked, back":               {plain, markOut, tcRedirect, turned, unmarked, nil},
		"to be checked, IDS down":           {plain, markIn, tcShot, down, markIn, ids(bpf.VmgateIdsStateIDS_DOWN_CLOSED)},
		"to be checked, IDS down and open":  {plain, markIn, tcOK, open, markIn, ids(bpf.VmgateIdsStateIDS_DOWN_OPEN)},
		"to be checked, no IDS port":        {plain, markIn, tcShot, down, markIn, func(g *gateway) { g.set(func(s *bpf.VmgateSettings) { s.Ids[0].In = 0 }) }},
		"to be checked, no device":          {plain, markIn, tcShot, down, markIn, func(g *gateway) { g.put("ports", uint32(portIDSIn), bpf.VmgatePort{}) }},
		"to be checked, but monitoring":     {plain, markIn, tcOK, noticed, markIn, mode(bpf.VmgateModeMODE_MONITOR)},
		"the sender was isolated meanwhile": {plain, markForward, tcShot, stopped, markForward, isolate(idApp1)},
		"the receiver was isolated":         {plain, markForward, tcShot, stopped, markForward, isolate(idWeb)},
		"isolated, tagged":                  {tagged, markForward, tcShot, stopped, markForward, isolate(idApp1)},
		"isolated, but monitoring":          {plain, markForward, tcOK, sent, markForward, func(g *gateway) { g.vmVerdict(idWeb, drop); g.mode(bpf.VmgateModeMODE_MONITOR) }},
		"panic closed":                      {plain, markForward, tcShot, denied, markForward, mode(bpf.VmgateModeMODE_CLOSE)},
		"panic open":                        {plain, unmarked, tcOK, open, unmarked, mode(bpf.VmgateModeMODE_OPEN)},
	} {
		t.Run(name, func(t *testing.T) {
			g := g.in(t)
			g.populate()
			if c.prepare != nil {
				c.prepare(g)
			}
			g.expectTC("vmgate_egress", c.frame, c.mark, c.action, c.reason, c.markOut)
		})
	}
}

func TestMark_WithoutXDPsWordNothingReachesTheStack(t *testing.T) {
	g := newGateway(t)
	frame := tcpApp1ToWeb(tcp(1, 80, syn(1))).build(t)
	// A mark that the frame came with is cleared, whatever it says.
	g.expectTC("vmgate_mark", frame, bpf.VmgateMarkMARK_FORWARD, tcShot, bpf.VmgateReasonREASON_DROP_INGRESS, 0)
	// Bytes of the frame are no metadata.
	fake := binary.NativeEndian.AppendUint32(nil, metaMagic)
	fake = binary.NativeEndian.AppendUint32(fake, uint32(bpf.VmgateMarkMARK_FORWARD))
	fake = binary.NativeEndian.AppendUint32(fake, 0)
	g.expectTC("vmgate_mark", append(fake, frame...), 0, tcShot, bpf.VmgateReasonREASON_DROP_INGRESS, 0)
}
