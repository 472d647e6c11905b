package bpf_test

import (
	"testing"

	"github.com/cilium/ebpf"

	"github.com/vmgate/vmgate/bpf"
)

// TestCost_VerifierEffortStaysBounded keeps the programs far from the
// verifier's million: other kernels prune differently. A change that crosses a
// limit has multiplied paths; see the notes on scratch in maps.h.
func TestCost_VerifierEffortStaysBounded(t *testing.T) {
	// The constants of a port decide how much of the programs is left: all of it here.
	full := bpf.VmgatePortConfig{Id: portApp, Segment: portApp, Group: group, Proxy: 1, Answer: 1, Multicast: 1}
	xdp, tcx := load(t, pathXDP, full, nil), load(t, pathTCX, full, nil)
	for name, limit := range map[string]uint32{
		"vmgate_ingress": 300_000,
		"vmgate_tcx":     300_000,
		"vmgate_ids":     80_000,
		"vmgate_egress":  5_000,
		"vmgate_mark":    500,
		"vmgate_deliver": 500,
		"vmgate_pass":    10,
	} {
		prog := xdp.progs[name]
		if prog == nil {
			prog = tcx.progs[name]
		}
		info, err := prog.Info()
		if err != nil {
			t.Fatal(err)
		}
		n, ok := info.VerifiedInstructions()
		if !ok {
			t.Skip("needs a kernel that tells verified instructions (Linux 5.16)")
		}
		t.Logf("%s: %d verified instructions", name, n)
		if n > limit {
			t.Errorf("%s: %d verified instructions, limit %d", name, n, limit)
		}
	}
}

// BenchmarkIngress measures one packet of a decided flow; the no-op beside it
// is what the test run itself costs.
func BenchmarkIngress(b *testing.B) {
	plain := tcpApp1ToWeb(tcp(40000, 80, ack))
	for _, c := range []struct {
		name, program string
		frame         packet
	}{
		{"noop", "vmgate_pass", plain},
		{"established IPv4", "vmgate_ingress", plain},
		{"established IPv6", "vmgate_ingress", plain.overIPv6()},
	} {
		b.Run(c.name, func(b *testing.B) {
			g := newGateway(b)
			g.decide(6, 0, c.frame.src, 40000, c.frame.dst, 80, nil)
			frame := c.frame.build(b)
			b.ResetTimer()
			_, err := g.progs[c.program].Run(&ebpf.RunOptions{Data: frame, Repeat: uint32(b.N)})
			if err != nil {
				b.Fatal(err)
			}
		})
	}
}
