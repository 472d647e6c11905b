package bench_test

import (
	"bytes"
	"encoding/binary"
	"testing"
	"time"

	"github.com/cilium/ebpf"

	"github.com/vmgate/vmgate/internal/bench/result"
	"github.com/vmgate/vmgate/pkg/loader"
	"github.com/vmgate/vmgate/pkg/verdict"
)

// BenchmarkProgram measures the XDP program alone on a packet of an established flow,
// by test runs, less what a program that does nothing takes in the same.
func BenchmarkProgram(b *testing.B) {
	want(b, "xdp_ns_over_noop")
	const runs = 2_000_000
	conditions := result.Conditions(map[string]any{
		"frame_bytes": 64, "runs_of_the_program": runs, "context": "ingress_ifindex of the vNIC, queue 0", "flows": wireFlows, "packets": "of one flow",
	})
	w := newWire(b)
	w.attached(func(dp *loader.Dataplane) {
		fill(b, dp, verdict.Forward, wireFlows)
		device, err := w.gateway.Netlink().LinkByName(inDevice)
		must(b, err)
		prog, err := ebpf.NewProgramFromID(ebpf.ProgramID(device.Attrs().Xdp.ProgId))
		must(b, err)
		defer prog.Close()
		noop := w.bareDrop()
		nanoseconds := func(prog *ebpf.Program, action uint32) float64 {
			before := forwarded(b, dp)
			options := &ebpf.RunOptions{Data: frame(), Context: xdpContext(frame(), device.Attrs().Index), Repeat: runs}
			var took time.Duration
			alone(b, func() error {
				begin := time.Now()
				got, err := prog.Run(options)
				took = time.Since(begin)
				if err == nil && got != action {
					b.Fatalf("the program returned %d, not %d", got, action)
				}
				return err
			})
			if n := forwarded(b, dp) - before; prog != noop && n != runs || prog == noop && n != 0 {
				b.Fatalf("%d packets are counted as forwarded, of %d", n, runs)
			}
			return float64(took.Nanoseconds()) / runs
		}
		found := alternate(b, pairs, []peer{
			{"program", func() float64 { return nanoseconds(prog, 4) }}, // XDP_REDIRECT
			{"noop", func() float64 { return nanoseconds(noop, 1) }},    // XDP_DROP
		})
		var over []float64
		for i, ns := range found["program"] {
			over = append(over, ns-found["noop"][i])
		}
		record(b, map[string]result.Figure{"xdp_ns_over_noop": result.Of("ns", over), "xdp_ns_noop": result.Of("ns", found["noop"])}, conditions, nil)
	})
}

// xdpContext is a struct xdp_md for a test run.
func xdpContext(frame []byte, ifindex int) []byte {
	var md bytes.Buffer
	_ = binary.Write(&md, binary.NativeEndian, [6]uint32{1: uint32(len(frame)), 3: uint32(ifindex)}) // data, data_end, data_meta, ingress_ifindex, …
	return md.Bytes()
}

// forwarded counts what the port of the wire's sender forwarded by XDP.
func forwarded(b *testing.B, dp *loader.Dataplane) (packets uint64) {
	b.Helper()
	counters, err := dp.Counters()
	must(b, err)
	for _, c := range counters {
		if c.PortID == 1 && c.Reason.String() == "forward" {
			packets += c.Packets
		}
	}
	return packets
}
