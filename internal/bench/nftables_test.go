package bench_test

import (
	"fmt"
	"os/exec"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"golang.org/x/sys/unix"
)

// nftables returns a measurement of the kernel's bridge with a stateful ruleset: what
// is of an established connection is accepted by the first rule, and so many others
// follow. The bridge's packets get to it by bridge netfilter, since few kernels have
// connection tracking in the bridge family itself.
func (w *wire) nftables(rules int) func() float64 {
	return func() float64 {
		w.b.Helper()
		must(w.b, w.gateway.SetFeatures(inDevice, map[string]bool{"rx-gro": true}))
		must(w.b, w.gateway.SetFeatures(outDevice, map[string]bool{"rx-gro": true}))
		must(w.b, w.gateway.AddBridge("br0", []string{inDevice, outDevice}))
		must(w.b, w.gateway.Sysctl("bridge/bridge-nf-call-iptables", "1"))
		w.nft(stateful(rules))
		defer func() {
			w.nft("flush ruleset\n")
			must(w.b, w.gateway.Sysctl("bridge/bridge-nf-call-iptables", "0"))
			must(w.b, w.gateway.Delete("br0"))
		}()
		w.pour(1 << 16)
		w.answer(1 << 16)
		return w.measure("nftables", true)
	}
}

// stateful writes a ruleset of which an established connection meets the first rule
// and a new one all.
func stateful(rules int) string {
	var text strings.Builder
	text.WriteString("table ip bench {\n chain forward {\n  type filter hook forward priority 0; policy drop;\n  ct state established,related accept\n")
	for i := range rules - 2 {
		fmt.Fprintf(&text, "  ip saddr 192.0.2.%d udp dport %d drop\n", i%250+1, 1000+i)
	}
	text.WriteString("  udp dport 80 accept\n }\n}\n")
	return text.String()
}

func (w *wire) nft(ruleset string) {
	w.b.Helper()
	var out []byte
	must(w.b, w.gateway.Do(func() (err error) {
		cmd := exec.Command("nft", "-f", "-")
		cmd.Stdin = strings.NewReader(ruleset)
		if out, err = cmd.CombinedOutput(); err != nil {
			err = fmt.Errorf("nft: %w: %s", err, out)
		}
		return err
	}))
}

// answer sends frames of the wire's first flows from the sink back to the sender.
func (w *wire) answer(frames int) {
	w.b.Helper()
	device, err := w.sink.Netlink().LinkByName("eth0")
	must(w.b, err)
	prog := w.program(asm.Instructions{
		asm.LoadMem(asm.R6, asm.R1, 0, asm.Word),
		asm.LoadMem(asm.R7, asm.R1, 4, asm.Word),
		asm.Mov.Reg(asm.R8, asm.R6),
		asm.Add.Imm(asm.R8, 38),
		asm.JGT.Reg(asm.R8, asm.R7, "send"),
		asm.FnGetPrandomU32.Call(),
		asm.And.Imm(asm.R0, wireFlows-1),
		asm.Add.Imm(asm.R0, firstPort),
		asm.HostTo(asm.BE, asm.R0, asm.Half),
		asm.StoreMem(asm.R6, 36, asm.R0, asm.Half),
		asm.Mov.Imm(asm.R1, int32(device.Attrs().Index)).WithSymbol("send"),
		asm.Mov.Imm(asm.R2, 0),
		asm.FnRedirect.Call(),
		asm.Return(),
	})
	f := frame()
	for i := range 6 {
		f[i], f[6+i] = f[6+i], f[i]
	}
	for i := range 4 {
		f[26+i], f[30+i] = f[30+i], f[26+i]
	}
	f[34], f[35], f[36], f[37] = f[36], f[37], f[34], f[35]
	must(w.b, w.sink.Do(func() error {
		_, err := prog.Run(&ebpf.RunOptions{Data: f, Repeat: uint32(frames), Flags: unix.BPF_F_TEST_XDP_LIVE_FRAMES, BatchSize: 64})
		return err
	}))
}
