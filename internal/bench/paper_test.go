package bench_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vmgate/vmgate/internal/bench/result"
	"github.com/vmgate/vmgate/internal/event"
	"github.com/vmgate/vmgate/internal/lab"
	"github.com/vmgate/vmgate/pkg/loader"
	"github.com/vmgate/vmgate/pkg/vmi/vmitest"
)

const (
	paperRuns      = 3 // with each engine; every one boots a guest
	paperThreshold = 10
	paperAfter     = 2 * time.Second
)

// BenchmarkPaper is the paper's experiment (internal/e2e tests that it goes as it
// should): a process of a real guest opens a channel, hides, scans its neighbour, and
// floods it; it is traced, inspected, convicted, and cut off.
func BenchmarkPaper(b *testing.B) {
	want(b, "paper_victim_packets", "paper_cutoff_ms", "paper_dropped_in_xdp")
	if err := lab.GuestSupport(""); err != nil {
		b.Skip(err)
	}
	conditions := result.Conditions(map[string]any{
		"threshold": paperThreshold, "runs": paperRuns, "guest": lab.Acceleration(), "flood": "16 connections in the making at any time",
		"attack": "a channel, then, hidden, a scan of three ports, then the flood: one process",
		"cutoff": "by the clock of the host, from the engine's time stamp of the packet to that of the event, which follows the writing of the maps",
	})
	found := map[string]result.Figure{}
	for _, engine := range paperEngines() {
		if _, err := exec.LookPath(engine.binary); err != nil {
			progress(b, "no %s here: %v", engine.name, err)
			continue
		}
		var victim, cutoff, dropped []float64
		for run := range paperRuns {
			var p paperFigures
			// What it made goes before the next begins.
			if !b.Run(fmt.Sprintf("%s%d", engine.name, run+1), func(b *testing.B) { p = paperRun(b, engine) }) {
				b.FailNow()
			}
			victim, cutoff, dropped = append(victim, p.victim), append(cutoff, p.cutoff), append(dropped, p.dropped)
			progress(b, "%s %d/%d: the victim saw %g, cut off after %.2f ms, %g dropped", engine.name, run+1, paperRuns, p.victim, p.cutoff, p.dropped)
		}
		found["paper_victim_packets"+engine.suffix] = result.Of("packets", victim)
		found["paper_cutoff_ms"+engine.suffix] = result.Of("ms", cutoff)
		found["paper_dropped_in_xdp"+engine.suffix] = result.Of("packets", dropped)
	}
	if len(found) == 0 {
		b.Skip("neither suricata nor snort is here")
	}
	record(b, found, conditions, nil)
}

// paperEngine is an engine, and what its figures' names end with.
type paperEngine struct{ name, binary, suffix string }

func paperEngines() []paperEngine {
	snort := os.Getenv("VMGATE_SNORT")
	if snort == "" {
		snort = "snort"
	}
	return []paperEngine{{"suricata", "suricata", ""}, {"snort", snort, "_snort"}}
}

// paperFigures are one run's.
type paperFigures struct{ victim, cutoff, dropped float64 }

func paperRun(b *testing.B, engine paperEngine) (p paperFigures) {
	b.Helper()
	path, err := exec.LookPath(engine.binary)
	must(b, err)
	f := startTraced(b, traced+fmt.Sprintf("ids: {engine: %s, binary: %s, rules: [DIR/local.rules]}\n", engine.name, path),
		fmt.Sprintf(`drop tcp any any -> 10.77.0.21 80 (msg:"TCP sync flood"; flow:stateless; flags:S; detection_filter: track by_src, count %d, seconds 60; sid:1000001; rev:1;)`+"\n", paperThreshold))
	f.dp, err = loader.Open(loader.Options{Pins: f.Pins})
	must(b, err)
	defer f.dp.Close()
	f.listen(80, func(conn net.Conn) {
		defer conn.Close()
		_, _ = io.Copy(conn, struct{ io.Reader }{conn})
	})
	ctx, cancel := context.WithTimeout(b.Context(), 2*time.Minute)
	defer cancel()
	events, err := f.Client.Monitor(ctx)
	must(b, err)
	bad, err := f.guest.Start(ctx, "bad", "flood", "10.77.0.21:80", "-wait", "15s", "-keep", "10.77.0.21:80",
		"-scan", "10.77.0.21:21,10.77.0.21:22,10.77.0.21:23")
	must(b, err)
	_, err = bad.WaitLine(ctx, func(line string) bool { return strings.Contains(line, `"kept":true`) })
	must(b, err)
	for frame, _ := f.out.next(b); frame != nil; { // its channel's
		frame, _ = f.out.next(b)
	}
	before := f.counted("drop-verdict")
	must(b, vmitest.Hide(f.guest.MemoryFile(), "q35", uint32(bad.PID())))
	p.cutoff = cutoff(b, events, bad.PID())
	time.Sleep(paperAfter)
	p.dropped = float64(f.counted("drop-verdict") - before)
	for frame, _ := f.out.next(b); frame != nil; frame, _ = f.out.next(b) {
		if len(frame) >= 54 && frame[23] == 6 && frame[47]&0x12 == 0x02 && bytes.Equal(frame[26:30], []byte{10, 77, 0, 13}) {
			p.victim++
		}
	}
	must(b, bad.Signal(syscall.SIGKILL))
	_, err = bad.Wait(ctx)
	must(b, err)
	return p
}

// cutoff is the time, in milliseconds, from the packet of the first alert on a process
// to its conviction; the scan before must have been refused.
func cutoff(b *testing.B, events <-chan event.Event, pid int) float64 {
	b.Helper()
	var alert time.Time
	refused := 0
	for e := range events {
		if e.Type == "decision" && e.SrcVM == "app3" && e.Verdict == "drop" && e.DestPort < 80 {
			refused++ // whose it was does not matter to the policy
		}
		if e.SrcVM != "app3" || e.SrcProcess == nil || int(e.SrcProcess.PID) != pid {
			continue
		}
		switch {
		case e.Type == "alert" && alert.IsZero():
			alert = e.Timestamp
		case e.Type == "verdict" && e.Verdict == "drop" && !alert.IsZero():
			if refused < 3 {
				b.Fatalf("of a scan of three ports %d were refused", refused)
			}
			return e.Timestamp.Sub(alert).Seconds() * 1000
		}
	}
	b.Fatal("it is not cut off")
	return 0
}
