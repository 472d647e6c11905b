package bench_test

import (
	"fmt"
	"runtime"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vmgate/vmgate/internal/bench/result"
	"github.com/vmgate/vmgate/pkg/vmi"
)

const (
	vmiRuns      = 9
	vmiQuestions = 5000 // in a run, about sockets that are known
	vmiSweeps    = 3    // in a run
)

// Of a small guest the same is measured, with names of their own.
var crowds = []struct {
	prefix   string
	children int
}{{"vmi_", 450}, {"vmi_small_", 12}}

// BenchmarkIntrospection measures introspection on guests that are at rest:
// discovery of the kernel; the list of processes over all views, after a first
// one; the first look-up of an owner after discovery; one of a socket that is
// known, verified again, by the memory file and through the memory of QEMU's
// process; a sweep each second with the list of processes, as the daemon does
// it, in processor time; and what all that leaves in memory once every socket
// has been asked for.
func BenchmarkIntrospection(b *testing.B) {
	want(b, "vmi_discovery_ms", "vmi_process_list_ms", "vmi_owner_cold_ms", "vmi_owner_warm_p99_us",
		"vmi_owner_warm_process_p99_us", "vmi_sweep_core_percent", "vmi_memory_mib")
	conditions := result.Conditions(map[string]any{"questions_per_run": vmiQuestions, "sweeps_per_run": vmiSweeps})
	found := map[string]result.Figure{}
	for _, crowd := range crowds {
		c := newCrowd(b, crowd.children)
		progress(b, "%s: %d processes, %d sockets", c.os, c.processes, c.sockets)
		conditions[crowd.prefix+"guest"] = c.conditions(nil)
		for name, figure := range c.measure(b) {
			found[crowd.prefix+name] = figure
		}
		must(b, c.Close())
	}
	record(b, found, conditions, nil)
}

func (c *crowdGuest) measure(b *testing.B) map[string]result.Figure {
	guest := c.open(b)
	questions := c.known(b, guest, 64)
	runs := map[string][]float64{}
	for run := range vmiRuns {
		alone(b, func() error {
			for name, value := range c.round(b, guest, questions, run) {
				runs[name] = append(runs[name], value)
			}
			return nil
		})
	}
	through, err := vmi.OpenProcess(c.monitor(b), vmi.ProcessRAM{Size: crowdMiB << 20})
	must(b, err)
	defer through.Close()
	byProcess, err := vmi.Open(b.Context(), through, vmi.Options{})
	must(b, err)
	for range vmiRuns {
		quantiles(b, byProcess, questions, "owner_warm_process", runs)
		quantiles(b, guest, questions, "owner_warm", runs)
		runs["sweep_core_percent"] = append(runs["sweep_core_percent"], c.sweeps(b, guest))
		runs["memory_mib"] = append(runs["memory_mib"], c.footprint(b))
	}
	figures := map[string]result.Figure{}
	for name, values := range runs {
		figures[name] = result.Of(unitOf(name), values)
	}
	return figures
}

// unitOf is the last word of a key.
func unitOf(name string) string {
	for suffix, unit := range map[string]string{"_ms": "ms", "_us": "µs", "_percent": "%", "_mib": "MiB"} {
		if len(name) > len(suffix) && name[len(name)-len(suffix):] == suffix {
			return unit
		}
	}
	return ""
}

// round takes the figures that one call gives.
func (c *crowdGuest) round(b *testing.B, guest vmi.Guest, questions []owned, run int) map[string]float64 {
	begin := time.Now()
	fresh := c.open(b)
	found := map[string]float64{"discovery_ms": ms(time.Since(begin))}

	begin = time.Now()
	questions[run].ask(b, fresh)
	found["owner_cold_ms"] = ms(time.Since(begin))

	list := func() {
		processes, err := guest.Processes(b.Context())
		must(b, err)
		if len(processes) < c.processes-8 { // kernel workers come and go
			b.Fatalf("%d processes, %d before", len(processes), c.processes)
		}
	}
	list()
	var took []float64
	for range 20 {
		begin = time.Now()
		list()
		took = append(took, ms(time.Since(begin)))
	}
	found["process_list_ms"] = result.Of("ms", took).Median
	return found
}

// quantiles asks about known sockets.
func quantiles(b *testing.B, guest vmi.Guest, questions []owned, name string, runs map[string][]float64) {
	for _, q := range questions {
		q.ask(b, guest)
	}
	runtime.GC()
	took := make([]time.Duration, 0, vmiQuestions)
	alone(b, func() error {
		for i := range vmiQuestions {
			begin := time.Now()
			a := questions[i%len(questions)].ask(b, guest)
			took = append(took, time.Since(begin))
			if !a.Cached {
				return fmt.Errorf("not known any more: %+v", a)
			}
		}
		return nil
	})
	slices.Sort(took)
	runs[name+"_p50_us"] = append(runs[name+"_p50_us"], us(took[len(took)/2]))
	runs[name+"_p99_us"] = append(runs[name+"_p99_us"], us(took[len(took)*99/100]))
}

// sweeps sweeps once a second and returns the part of a core that it takes.
func (c *crowdGuest) sweeps(b *testing.B, guest vmi.Guest) float64 {
	begin, before := time.Now(), processorTime(b)
	for n := range vmiSweeps {
		must(b, guest.Sweep(b.Context()))
		_, err := guest.Processes(b.Context())
		must(b, err)
		time.Sleep(time.Until(begin.Add(time.Duration(n+1) * time.Second)))
	}
	return 100 * float64(processorTime(b)-before) / float64(time.Since(begin))
}

// footprint is what a guest takes of the heap that everything was asked of, and
// the map of used pages.
func (c *crowdGuest) footprint(b *testing.B) float64 {
	before := heap()
	guest := c.open(b)
	must(b, guest.Sweep(b.Context()))
	for _, q := range c.known(b, guest, c.sockets/4) {
		q.ask(b, guest)
	}
	_, err := guest.Findings(b.Context())
	must(b, err)
	must(b, guest.Sweep(b.Context()))
	after := heap()
	runtime.KeepAlive(guest)
	return (after - before) / (1 << 20)
}

func heap() float64 {
	runtime.GC()
	runtime.GC() // what pools keep goes with the second
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return float64(m.HeapAlloc)
}

func processorTime(b *testing.B) time.Duration {
	var u unix.Rusage
	must(b, unix.Getrusage(unix.RUSAGE_SELF, &u))
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
func us(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }
