package bench_test

import (
	"bytes"
	"fmt"
	"net/netip"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vmgate/vmgate/internal/bench/result"
	"github.com/vmgate/vmgate/pkg/loader"
)

const (
	alertRuns    = 5
	alertSamples = 200 // in a run
	probeGap     = 50 * time.Microsecond
	protoUDP     = 17
)

// BenchmarkAlertToDrop measures the time from the entry of an offending packet into
// ids-in to the first packet of its process that XDP drops.
//
// Each sample has a process with two flows: one through the engine, in which the
// offending packet goes, and one that XDP forwards, in which packets go all the
// time; the first of these that does not arrive is the first that is dropped. All
// times are of CLOCK_REALTIME: the kernel's time stamp of the offending packet where
// it enters the engine's end of ids-in, and the time just before the dropped packet
// was sent. The engine, the daemon and the data plane are the real ones; the
// processes are not: their numbers are written to the owners map before the daemon
// starts, which adopts them, and into the flows, as introspection would have it.
func BenchmarkAlertToDrop(b *testing.B) {
	want(b, "alert_to_drop_p50_ms", "alert_to_drop_p99_ms")
	medians, nines, conditions := alertToDrop(b, 0)
	record(b, map[string]result.Figure{
		"alert_to_drop_p50_ms": result.Of("ms", medians), "alert_to_drop_p99_ms": result.Of("ms", nines),
	}, conditions, nil)
}

// alertFlood is how many packets a second go through the engine beside those that are
// measured.
const alertFlood = 10_000

// BenchmarkAlertToDropFlood is the same while another flow floods the engine.
func BenchmarkAlertToDropFlood(b *testing.B) {
	want(b, "alert_to_drop_flood_p99_ms")
	medians, nines, conditions := alertToDrop(b, alertFlood)
	record(b, map[string]result.Figure{
		"alert_to_drop_flood_p50_ms": result.Of("ms", medians), "alert_to_drop_flood_p99_ms": result.Of("ms", nines),
	}, conditions, nil)
}

// alertToDrop takes the samples, with so many packets a second beside them. It returns
// the medians and the 99th percentiles of the runs.
func alertToDrop(b *testing.B, flood int) (medians, nines []float64, conditions map[string]any) {
	conditions = result.Conditions(map[string]any{
		"samples_per_run": alertSamples, "load": "one flow of UDP probes", "flood_per_second": flood, "engine": "suricata",
		"rules": alertRuns * alertSamples, "owners": "written to the maps, no introspection", "resolution_us": probeGap.Microseconds(),
	})
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	must(b, unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0)) // ns
	defer func() { _ = unix.Prctl(unix.PR_SET_TIMERSLACK, 0, 0, 0, 0) }()

	// Each sample has a rule of its own: the engine's event filter would hold back
	// the alerts of a rule that fires too often.
	var rules strings.Builder
	for i := range alertRuns * alertSamples {
		fmt.Fprintf(&rules, `drop udp any any -> any 443 (msg:"bench"; content:"<evil-%d>"; sid:%d; rev:1;)`+"\n", i, 1000+i)
	}
	a := &alertBench{gateway: newGateway(b, inspected, rules.String())}
	a.prepare()
	defer a.flood(flood)()
	var all []float64
	for run := range alertRuns {
		var took []float64
		progress(b, "run %d of %d, %d samples", run+1, alertRuns, alertSamples)
		for i := range alertSamples {
			took = append(took, a.sample(run*alertSamples+i).Seconds()*1000)
		}
		slices.Sort(took)
		medians, nines = append(medians, percentile(took, 50)), append(nines, percentile(took, 99))
		all = append(all, took...)
	}
	slices.Sort(all)
	conditions["worst_ms"] = all[len(all)-1]
	conditions["lost_to_overload"] = a.offended - len(all)
	return medians, nines, conditions
}

// flood sends packets of a flow of its own through the engine, which lets them by,
// until it is told to stop.
func (a *alertBench) flood(perSecond int) (stop func()) {
	if perSecond == 0 {
		return func() {}
	}
	const burst = time.Millisecond
	frame := datagram(a.b, a.App1, a.Web1, 19999, 443, "<flood>")
	sender := tapOn(a.b, a.App1)
	ended, ending := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTicker(burst)
		defer tick.Stop()
		for began, sent := time.Now(), 0; ; {
			select {
			case <-ending:
				return
			case <-tick.C:
			}
			for due := int(time.Since(began).Seconds() * float64(perSecond)); sent < due; sent++ {
				_, _ = unix.Write(sender.fd, frame) // one that finds no room is one less
			}
		}
	}()
	return func() { close(ending); <-ended }
}

// percentile is the smallest value that p of a hundred do not exceed.
func percentile(sorted []float64, p int) float64 {
	return sorted[max(0, (len(sorted)*p+99)/100-1)]
}

type alertBench struct {
	*gateway
	sender, receiver, engine *tap
	group                    uint8
	offended                 int // packets that offend
}

// prepare makes the processes known and opens the sockets.
func (a *alertBench) prepare() {
	vm := a.vm("app1")
	a.stop()
	for i := range alertRuns * alertSamples {
		id := uint32(1 + i)
		must(a.b, a.dp.SetOwner(id, loader.Owner{Verdict: 1, VM: vm, PID: 10000 + id, StartTime: uint64(id), Comm: "bench"}))
		// A port that it holds keeps the daemon from giving the number to another.
		must(a.b, a.dp.PutVerdict(loader.VerdictKey{VM: vm, Proto: protoUDP, Port: direct(i)}, loader.VerdictEntry{Verdict: 1, Owner: id, Observed: loader.Now()}))
	}
	a.start()
	a.absorb(a.Web1, 80)
	a.absorb(a.Web1, 443)
	a.sender, a.receiver = tapOn(a.b, a.App1), tapOn(a.b, a.Web1)
	a.engine = tapIn(a.b, filepath.Base(a.Pins)+"-ids", "ids-in-p")
}

// The source ports of a sample's flows.
func checked(i int) uint16 { return uint16(20000 + i) }
func direct(i int) uint16  { return uint16(30000 + i) }

// sample convicts one process.
func (a *alertBench) sample(i int) time.Duration {
	a.b.Helper()
	a.open(checked(i), 443, uint32(1+i))
	a.open(direct(i), 80, uint32(1+i))
	before := a.dropped()
	evil := fmt.Sprintf("<evil-%d>", i)
	for frame, _ := a.engine.next(a.b); frame != nil; {
		frame, _ = a.engine.next(a.b)
	}
	offend := func() {
		a.sender.send(a.b, datagram(a.b, a.App1, a.Web1, checked(i), 443, evil))
		a.offended++
	}
	offend()
	again := time.Now().Add(offendAgain)

	const enough = 20 // in a row that did not arrive
	var sent []time.Time
	last := -1 // that arrived
	for len(sent)-1-last < enough {
		if len(sent) > 200_000 {
			a.b.Fatalf("sample %d: the process is not cut off", i)
		}
		if last+1 == len(sent) && time.Now().After(again) {
			offend() // the engine had no room for it: it was lost, as in any overload
			again = time.Now().Add(offendAgain)
		}
		frame := datagram(a.b, a.App1, a.Web1, direct(i), 80, fmt.Sprintf("<probe-%d-%d>", i, len(sent)))
		sent = append(sent, time.Now())
		a.sender.send(a.b, frame)
		last = max(last, a.arrived(i))
		gap := unix.NsecToTimespec(probeGap.Nanoseconds())
		_ = unix.Nanosleep(&gap, nil) // cut short, it is a little less
	}
	if last+1 >= len(sent) || a.dropped() < before+enough/2 {
		a.b.Fatalf("sample %d: packets are lost and not dropped: %d counted", i, a.dropped()-before)
	}
	entered := a.entered(evil, sent[last+1])
	took := sent[last+1].Sub(entered)
	if entered.IsZero() || took < 0 {
		a.b.Fatalf("sample %d: entered at %v, first drop %v later", i, entered, took)
	}
	return took
}

// arrived returns the highest number of the probes that have come, -1 for none.
func (a *alertBench) arrived(i int) int {
	highest, prefix := -1, []byte(fmt.Sprintf("<probe-%d-", i))
	for {
		frame, _ := a.receiver.next(a.b)
		if frame == nil {
			return highest
		}
		if at := bytes.Index(frame, prefix); at >= 0 {
			var n int
			if _, err := fmt.Sscanf(string(frame[at+len(prefix):]), "%d>", &n); err == nil {
				highest = max(highest, n)
			}
		}
	}
}

// entered is when a packet last came to the engine before a time.
func (a *alertBench) entered(payload string, before time.Time) (entered time.Time) {
	for {
		frame, at := a.engine.next(a.b)
		if frame == nil {
			return entered
		}
		if bytes.Contains(frame, []byte(payload)) && at.Before(before) {
			entered = at
		}
	}
}

// offendAgain is when another offending packet is sent where the first had no effect.
const offendAgain = 500 * time.Millisecond

// open has a flow decided, and gives it its owner.
func (a *alertBench) open(source, port uint16, owner uint32) {
	a.b.Helper()
	hello := fmt.Sprintf("<hello-%d-%d>", source, port)
	a.until("a flow is decided", func() bool {
		a.sender.send(a.b, datagram(a.b, a.App1, a.Web1, source, port, hello))
		time.Sleep(2 * time.Millisecond)
		for {
			frame, _ := a.receiver.next(a.b)
			if frame == nil || bytes.Contains(frame, []byte(hello)) {
				return frame != nil
			}
		}
	})
	a.until("a flow is written", func() bool {
		src, dst := netip.AddrPortFrom(a.App1.V4.Addr(), source), netip.AddrPortFrom(a.Web1.V4.Addr(), port)
		if a.group == 0 {
			flows := a.dp.Flows()
			for key := range flows.All() {
				a.group = key.Group()
			}
			must(a.b, flows.Err())
		}
		key, from := loader.NewFlowKey(protoUDP, src, dst, 0, 0, a.group)
		flow, ok, err := a.dp.Flow(key)
		must(a.b, err)
		if ok {
			flow.Dir[from].Owner = owner
			must(a.b, a.dp.PutFlow(key, flow))
		}
		return ok
	})
}

func (a *alertBench) until(what string, done func() bool) {
	a.b.Helper()
	for deadline := time.Now().Add(10 * time.Second); !done(); {
		if time.Now().After(deadline) {
			a.b.Fatalf("waited in vain: %s", what)
		}
	}
}

// dropped counts what XDP dropped by a verdict.
func (a *alertBench) dropped() (packets uint64) {
	a.b.Helper()
	counters, err := a.dp.Counters()
	must(a.b, err)
	for _, c := range counters {
		if c.Reason.String() == "drop-verdict" {
			packets += c.Packets
		}
	}
	return packets
}
