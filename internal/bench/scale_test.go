package bench_test

import (
	"testing"

	"github.com/vmgate/vmgate/internal/bench/result"
	"github.com/vmgate/vmgate/pkg/loader"
	"github.com/vmgate/vmgate/pkg/verdict"
)

// million is how many flows a gateway is to hold.
const million = 1_000_000

// BenchmarkScale measures what many flows cost the few, and what they cost when all
// are in use.
func BenchmarkScale(b *testing.B) {
	want(b, "scale_1m_idle", "scale_1m_active")
	conditions := result.Conditions(map[string]any{
		"frame_bytes": 64, "frames_a_run": perRun, "runs": pairs, "flows": []int{wireFlows, million},
		"use": "each frame's flow is chosen evenly",
	})
	w := newWire(b)
	rates := map[string][]float64{}
	measure := func(what string, active int) {
		w.sendFlows(active)
		rates[what] = append(rates[what], w.measure(what, true))
		progress(b, "%d/%d %s %.4g", len(rates[what]), pairs, what, rates[what][len(rates[what])-1])
	}
	for range pairs {
		w.attached(func(dp *loader.Dataplane) {
			fill(b, dp, verdict.Forward, wireFlows)
			measure("few", wireFlows)
			fill(b, dp, verdict.Forward, million)
			measure("few_beside_1m", wireFlows)
			measure("1m", million)
		})
	}
	found := map[string]result.Figure{
		"scale_1m_idle":   result.Ratios(rates["few_beside_1m"], rates["few"]),
		"scale_1m_active": result.Ratios(rates["1m"], rates["few"]),
	}
	for what, runs := range rates {
		found["scale_pps_"+what] = result.Of("packets/s", runs)
	}
	record(b, found, conditions, nil)
}
