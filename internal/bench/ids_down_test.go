package bench_test

import (
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vmgate/vmgate/internal/bench/result"
	"github.com/vmgate/vmgate/pkg/loader"
)

// downSamples is how often an engine is ended in each way; the pauses between its
// starts grow.
const downSamples = 7

// BenchmarkIDSDown measures the time from an engine's end to the moment when the
// kernel's maps say that it is down, by one clock: noticed, and in force. After each a
// packet to be inspected is sent, and must be counted as dropped for that reason.
func BenchmarkIDSDown(b *testing.B) {
	want(b, "ids_down_noticed_ms")
	conditions := result.Conditions(map[string]any{
		"engine": "suricata", "load": "none but canaries", "samples": downSamples,
		"ways": "SIGKILL; SIGSTOP; one of its two workers stopped by ptrace",
	})
	found, all := map[string]result.Figure{}, []float64{}
	for name, end := range map[string]func(b *testing.B, pid int) (undo func()){
		"killed": func(b *testing.B, pid int) func() { must(b, unix.Kill(pid, unix.SIGKILL)); return func() {} },
		"stopped": func(b *testing.B, pid int) func() {
			must(b, unix.Kill(pid, unix.SIGSTOP))
			return func() {}
		},
		"one_worker": stopWorker,
	} {
		g := newGateway(b, inspected, `alert udp any any -> any any (msg:"never"; content:"bench-never-sent"; sid:1; rev:1;)`+"\n")
		g.absorb(g.Web1, 443)
		var took []float64
		for i := range downSamples {
			took = append(took, g.down(b, i, end).Seconds()*1000)
		}
		must(b, g.Stop(syscall.SIGTERM))
		progress(b, "%s: %.1f ms", name, took)
		found["ids_down_noticed_"+name+"_ms"] = result.Of("ms", took)
		all = append(all, took...)
	}
	slices.Sort(all)
	conditions["all_ms"] = all
	worst := all[len(all)-1]
	found["ids_down_noticed_ms"] = result.Of("ms", []float64{worst}) // what is promised is the worst
	record(b, found, conditions, nil)
}

// down ends the engine once, and waits until it is up again.
func (g *gateway) down(b *testing.B, i int, end func(*testing.B, int) func()) time.Duration {
	runtime.LockOSThread() // ptrace is a thread's
	defer runtime.UnlockOSThread()
	status, err := g.Client.Status(b.Context())
	must(b, err)
	sender := tapOn(b, g.App1)
	began := time.Now()
	undo := end(b, status.IDS.PID)
	for {
		s, err := g.dp.Settings()
		must(b, err)
		if s.IDS[0].State != loader.IDSUp {
			break
		}
		if time.Since(began) > 30*time.Second {
			b.Fatal("nobody notices")
		}
		pause := unix.NsecToTimespec(int64(100 * time.Microsecond))
		_ = unix.Nanosleep(&pause, nil)
	}
	took := time.Since(began)
	undo()
	before := g.counted("drop-ids-down")
	sent := 0
	for deadline := time.Now().Add(5 * time.Second); g.counted("drop-ids-down") == before; sent++ {
		if time.Now().After(deadline) {
			b.Fatalf("%d packets to be inspected were sent, and none is counted as dropped for want of an engine", sent)
		}
		sender.send(b, datagram(b, g.App1, g.Web1, uint16(21000+i), 443, "bench"))
		time.Sleep(time.Millisecond)
	}
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		now, err := g.Client.Status(b.Context())
		if err == nil && now.IDS.State == "up" && now.IDS.PID != status.IDS.PID {
			return took
		}
		if time.Now().After(deadline) {
			b.Fatal("the engine does not come back")
		}
	}
}

// counted is how many packets were counted for a reason, at all ports.
func (g *gateway) counted(reason string) (packets uint64) {
	counters, err := g.dp.Counters()
	must(g.b, err)
	for _, c := range counters {
		if c.Reason.String() == reason {
			packets += c.Packets
		}
	}
	return packets
}

// stopWorker stops one of the engine's inspecting threads, as a bug of its own would;
// the others run.
func stopWorker(b *testing.B, pid int) (undo func()) {
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	must(b, err)
	for _, e := range entries {
		name, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%s/comm", pid, e.Name()))
		if err != nil || !strings.HasPrefix(string(name), "W#") {
			continue
		}
		var id int
		_, err = fmt.Sscan(e.Name(), &id)
		must(b, err)
		must(b, unix.PtraceSeize(id))
		must(b, unix.PtraceInterrupt(id))
		return func() { // it is being killed, and its end is its tracer's to take
			for {
				var status unix.WaitStatus
				if _, err := unix.Wait4(id, &status, unix.WALL, nil); err != nil && err != unix.EINTR || status.Exited() || status.Signaled() {
					return
				}
			}
		}
	}
	b.Fatal("the engine has no worker")
	return nil
}
