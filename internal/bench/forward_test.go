package bench_test

import (
	"crypto/rand"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vmgate/vmgate/internal/bench/result"
	"github.com/vmgate/vmgate/internal/lab"
	"github.com/vmgate/vmgate/pkg/loader"
	"github.com/vmgate/vmgate/pkg/verdict"
)

const (
	perRun    = 1 << 22
	arrivesAt = 0.99 // of the frames; where fewer arrive the rate would be of something else
)

// BenchmarkForward compares, on one wire in alternating runs, vmgate's forwarding
// and dropping with a bare redirect, a bare drop and the kernel's bridge.
func BenchmarkForward(b *testing.B) {
	want(b, "forward_vs_bridge", "forward_vs_bare", "drop_vs_bare")
	conditions := result.Conditions(map[string]any{
		"frame_bytes": 64, "flows": wireFlows, "frames_a_run": perRun, "runs": pairs,
		"path": "live frames → veth → gateway → veth → XDP drop, all on one CPU; drop ends in the gateway",
	})
	w := newWire(b)
	rates := alternate(b, pairs, []peer{
		{"vmgate", w.vmgate}, {"bare", w.bare}, {"bridge", w.bridge}, {"vmgate_drop", w.vmgateDrop}, {"bare_drop", w.dropBare},
		{"nftables_100", w.nftables(100)}, {"nftables_1000", w.nftables(1000)},
	})
	found := map[string]result.Figure{
		"forward_vs_bridge":        result.Ratios(rates["vmgate"], rates["bridge"]),
		"forward_vs_bare":          result.Ratios(rates["vmgate"], rates["bare"]),
		"forward_vs_nftables_100":  result.Ratios(rates["vmgate"], rates["nftables_100"]),
		"forward_vs_nftables_1000": result.Ratios(rates["vmgate"], rates["nftables_1000"]),
		"drop_vs_bare":             result.Ratios(rates["vmgate_drop"], rates["bare_drop"]),
	}
	for name, runs := range rates {
		found["forward_pps_"+name] = result.Of("packets/s", runs)
	}
	record(b, found, conditions, nil)
}

// measure pours frames and wants the expected share to arrive.
func (w *wire) measure(what string, wanted bool) float64 {
	w.b.Helper()
	rate, arrived := w.pour(perRun)
	if share := float64(arrived) / perRun; wanted && share < arrivesAt || !wanted && share > 1-arrivesAt {
		w.b.Fatalf("%s: %d of %d frames arrived", what, arrived, perRun)
	}
	return rate
}

func (w *wire) bare() float64     { return w.withProgram(true) }
func (w *wire) dropBare() float64 { return w.withProgram(false) }

func (w *wire) withProgram(forward bool) (rate float64) {
	w.b.Helper()
	prog := w.bareDrop()
	if forward {
		prog = w.bareRedirect()
	}
	out := w.bareDrop() // a redirect wants a program at the other interface too
	must(w.b, w.gateway.Do(func() error {
		l, err := attachXDP(prog, inDevice)
		if err != nil {
			return err
		}
		defer l.Close()
		l2, err := attachXDP(out, outDevice)
		if err != nil {
			return err
		}
		defer l2.Close()
		rate = w.measure("bare program", forward)
		return nil
	}))
	return rate
}

// bridge is the kernel's own, with the receiver's address known.
func (w *wire) bridge() float64 {
	w.b.Helper()
	// The loader has turned GRO off: frames that are redirected into a veth want it,
	// or a program.
	must(w.b, w.gateway.SetFeatures(inDevice, map[string]bool{"rx-gro": true}))
	must(w.b, w.gateway.AddBridge("br0", []string{inDevice, outDevice}))
	defer func() { must(w.b, w.gateway.Delete("br0")) }()
	return w.measure("bridge", true)
}

func (w *wire) vmgate() float64     { return w.withGateway(verdict.Forward) }
func (w *wire) vmgateDrop() float64 { return w.withGateway(verdict.Drop) }

// withGateway measures vmgate's own programs with all flows decided, forwarded or
// dropped by the verdict on the process that owns them.
func (w *wire) withGateway(owner verdict.Verdict) (rate float64) {
	w.b.Helper()
	w.attached(func(dp *loader.Dataplane) {
		fill(w.b, dp, owner, wireFlows)
		rate = w.measure("vmgate", owner == verdict.Forward)
	})
	return rate
}

// attached calls f in the gateway's namespace, with vmgate on both of its devices.
func (w *wire) attached(f func(*loader.Dataplane)) {
	w.b.Helper()
	w.attachedBy(loader.DatapathXDP, f)
}

func (w *wire) attachedBy(path loader.Datapath, f func(*loader.Dataplane)) {
	w.b.Helper()
	pins := filepath.Join("/sys/fs/bpf", lab.Prefix()+strings.ToLower(rand.Text()[:6]))
	must(w.b, w.gateway.Do(func() error {
		dp, err := loader.Open(loader.Options{Pins: pins})
		if err != nil {
			return err
		}
		defer func() {
			must(w.b, dp.Close())
			must(w.b, loader.Remove(pins))
		}()
		states, err := dp.SetPorts([]loader.Port{
			{ID: 1, Device: inDevice, Segment: 1, Datapath: path}, {ID: 2, Device: outDevice, Segment: 2, Datapath: path},
		})
		if err != nil {
			return err
		}
		for _, s := range states {
			if s.Err != nil {
				return s.Err
			}
		}
		f(dp)
		return nil
	}))
}

// fill decides the wire's first flows.
func fill(b *testing.B, dp *loader.Dataplane, owner verdict.Verdict, flows int) {
	b.Helper()
	forward := uint32(verdict.Forward)
	must(b, dp.SetSettings(loader.Settings{
		HeartbeatTimeout: time.Hour, PendingTimeout: time.Second, TCPEstablished: time.Hour, TCPTransient: time.Hour,
		UDPIdle: time.Hour, OtherIdle: time.Hour, HeldPerFlow: 4, EventSample: 20,
	}))
	must(b, dp.SetVM(1, loader.VMEntry{Verdict: forward, Name: "sender"}))
	must(b, dp.SetVM(2, loader.VMEntry{Verdict: forward, Name: "receiver"}))
	must(b, dp.SetRule(1, loader.Rule{Verdict: forward, Name: "allow"}))
	must(b, dp.SetOwner(1, loader.Owner{Verdict: uint32(owner), VM: 1, PID: 1, Comm: "sender"}))
	must(b, dp.SetOwner(2, loader.Owner{Verdict: forward, VM: 2, PID: 1, Comm: "receiver"}))
	for n := range flows {
		key, from := loader.NewFlowKey(17, flow(n), receiver, 0, 0, 0)
		must(b, dp.PutFlow(key, wireFlow(from)))
	}
}

// wireFlow is a flow from the wire's sender to its receiver.
func wireFlow(from int) loader.Flow {
	f := loader.Flow{Created: loader.Now(), Verdict: uint32(verdict.Forward), Rule: 1, Initiator: from}
	f.Dir[from] = loader.FlowDir{SrcMAC: loader.MAC(senderMAC), DstMAC: loader.MAC(receiverMAC), InPort: 1, OutPort: 2, VM: 1, Owner: 1}
	f.Dir[1-from] = loader.FlowDir{SrcMAC: loader.MAC(receiverMAC), DstMAC: loader.MAC(senderMAC), InPort: 2, OutPort: 1, VM: 2, Owner: 2}
	return f
}
