package bpf_test

import (
	"encoding/binary"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"

	"github.com/vmgate/vmgate/bpf"
)

// datapath is one of the two programs that classify.
type datapath string

const (
	pathXDP datapath = "XDP"
	pathTCX datapath = "TCX"
)

// bothPaths runs a test over both programs: what becomes of a frame must not
// depend on the hook.
func bothPaths(t *testing.T, test func(*testing.T, *gateway)) {
	t.Helper()
	for _, path := range []datapath{pathXDP, pathTCX} {
		t.Run(string(path), func(t *testing.T) { test(t, newGatewayOn(t, path)) })
	}
}

// stripper hands frames to vmgate_tcx as the kernel does: the outer tag is taken
// out of the frame and stands beside it. It also puts an ethertype into frames
// that a test run would refuse under their own, because they are cut off.
type stripper struct{ prog *ebpf.Program }

// Offset of __sk_buff.cb: the tag's protocol, its TCI; the ethertype to set.
const offCB = 48

func newStripper(t testing.TB, tcx *ebpf.Program) *stripper {
	t.Helper()
	next, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.ProgramArray, KeySize: 4, ValueSize: 4, MaxEntries: 1})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = next.Close() })
	prog, err := ebpf.NewProgram(&ebpf.ProgramSpec{Type: ebpf.SchedCLS, License: "GPL", Instructions: asm.Instructions{
		asm.Mov.Reg(asm.R6, asm.R1),
		asm.LoadMem(asm.R7, asm.R6, offCB, asm.Word),
		asm.LoadMem(asm.R8, asm.R6, offCB+4, asm.Word),
		asm.LoadMem(asm.R9, asm.R6, offCB+8, asm.Word),
		asm.JEq.Imm(asm.R9, 0, "strip"),
		asm.StoreMem(asm.RFP, -8, asm.R9, asm.Half),
		asm.Mov.Imm(asm.R2, 12),
		asm.Mov.Reg(asm.R3, asm.RFP),
		asm.Add.Imm(asm.R3, -8),
		asm.Mov.Imm(asm.R4, 2),
		asm.Mov.Imm(asm.R5, 0),
		asm.FnSkbStoreBytes.Call(),
		asm.Ja.Label("classify"),
		asm.Mov.Reg(asm.R1, asm.R6).WithSymbol("strip"),
		asm.FnSkbVlanPop.Call(),
		asm.Mov.Reg(asm.R1, asm.R6),
		asm.Mov.Reg(asm.R2, asm.R7),
		asm.Mov.Reg(asm.R3, asm.R8),
		asm.FnSkbVlanPush.Call(),
		asm.Mov.Reg(asm.R1, asm.R6).WithSymbol("classify"),
		asm.LoadMapPtr(asm.R2, next.FD()),
		asm.Mov.Imm(asm.R3, 0),
		asm.FnTailCall.Call(),
		asm.Mov.Imm(asm.R0, 99), // there is no such action
		asm.Return(),
	}})
	if err != nil {
		t.Fatalf("%+v", err)
	}
	t.Cleanup(func() { _ = prog.Close() })
	if err := next.Put(uint32(0), tcx); err != nil {
		t.Fatal(err)
	}
	return &stripper{prog}
}

func isTagged(frame []byte) bool {
	if len(frame) < 18 {
		return false
	}
	kind := binary.BigEndian.Uint16(frame[12:])
	return kind == 0x8100 || kind == 0x88a8
}

// fireTCX sends one frame through vmgate_tcx and says what became of it in XDP's
// terms. The mark that the skb comes with must not matter.
func (g *gateway) fireTCX(frame []byte) outcome {
	g.Helper()
	prog, in := g.progs["vmgate_tcx"], skbContext{Mark: uint32(bpf.VmgateMarkMARK_FORWARD)}
	data := frame
	if isTagged(frame) {
		prog = g.strip.prog
		in.CB[0] = uint32(binary.NativeEndian.Uint16(frame[12:]))
		in.CB[1] = uint32(binary.BigEndian.Uint16(frame[14:]))
	}
	if len(frame) < 14+40 && !isTagged(frame) {
		prog = g.strip.prog
		data = overwrite(frame, 12, 0xff, 0xff)
		in.CB[2] = uint32(binary.NativeEndian.Uint16(frame[12:])) | 1<<16
	}
	var left skbContext
	opts := ebpf.RunOptions{Data: data, DataOut: make([]byte, len(frame)+256), Context: in, ContextOut: &left, Repeat: 1}
	action, err := prog.Run(&opts)
	if err != nil {
		g.Fatalf("run: %v\n% x", err, frame)
	}
	o := outcome{out: opts.DataOut, mark: bpf.VmgateMark(left.Mark)}
	if isTagged(frame) {
		o.out = append(append(append([]byte(nil), o.out[:12]...), frame[12:16]...), o.out[12:]...)
	}
	switch {
	case action == tcShot && o.mark == 0:
		o.action = xdpDrop
	case action == tcOK:
		o.action = xdpPass
	case action == tcRedirect && o.mark == bpf.VmgateMarkMARK_REDIRECT:
		o.action, o.mark = xdpRedirect, 0
	default:
		g.Errorf("action %d with mark %#x", action, o.mark)
	}
	return o
}
