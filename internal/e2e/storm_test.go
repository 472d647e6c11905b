package e2e_test

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vmgate/vmgate/internal/event"
)

// TestIDS_AlertStormDelaysNoDecision: an alert for every packet, as fast as one VM
// can send, for a rule that the engine's own filter leaves out.
func TestIDS_AlertStormDelaysNoDecision(t *testing.T) {
	g := namespaced(t, setup{IDS: `alert udp any any -> any any (msg:"storm"; content:"e2e-storm"; detection_filter: track by_src, count 1, seconds 60; sid:7000002; rev:1;)` + "\n"})
	absorb(t, g.Web1, 443)
	other := serve(t, g.Web1, 80)
	p := newProbe(g.App1, g.Web1, 443)
	g.passes(t, g.webWire, p)
	p.payload += "e2e-storm"
	frame := p.frame(t)
	fd := packetSocket(t, g.App1.Namespace, g.App1.Interface, 0)
	defer unix.Close(fd)

	mark, began := g.events.mark(), time.Now()
	memory, disk := g.resident(t), g.written(t)
	const storm = 300_000
	var sending sync.WaitGroup
	var sendErr error // of the sender, once it is done
	sending.Go(func() {
		for sent := 0; sent < storm && sendErr == nil; {
			switch _, err := unix.Write(fd, frame); err {
			case nil:
				sent++
			case unix.ENOBUFS: // the gateway has its hands full
				time.Sleep(time.Millisecond)
			default:
				sendErr = err
			}
		}
	})
	done := make(chan struct{})
	go func() { sending.Wait(); close(done) }()
	var times []time.Duration
	for ended := false; !ended || len(times) < 10; {
		from := time.Now()
		conn, err := dial(g.App2, other.address(false), patience)
		must(t, err)
		times = append(times, time.Since(from))
		conn.Close()
		select {
		case <-done:
			ended = true
		case <-time.After(20 * time.Millisecond):
		}
	}
	must(t, sendErr)
	took := time.Since(began)
	grown, wrote := g.resident(t)-memory, g.written(t)-disk
	t.Logf("the daemon grew by %d KiB, and %d KiB were written", grown>>10, wrote>>10)
	if grown > stormMemory {
		t.Errorf("the storm costs %d MiB of memory", grown>>20)
	}
	if wrote > stormDisk {
		t.Errorf("the storm costs %d MiB of disk", wrote>>20)
	}
	slices.Sort(times)
	t.Logf("%d packets in %v; %d connections beside it: median %v, worst %v", storm, took, len(times), times[len(times)/2], times[len(times)-1])
	// A SYN that is lost comes again after a second.
	if worst := times[len(times)-1]; worst > 900*time.Millisecond {
		t.Errorf("a connection took %v", worst)
	}
	alerts := 0
	for _, e := range g.events.since(mark) {
		switch e.Type {
		case "alert":
			alerts++
		case "ids":
			t.Errorf("a busy engine: %s", e.Message)
		}
	}
	if limit := 4 * (int(took/time.Second) + 2); alerts == 0 || alerts > limit {
		t.Errorf("%d alerts are told, want 1 to %d", alerts, limit)
	}
	g.events.wait(t, mark, "what was not told", func(e event.Event) bool {
		return e.Type == "alert" && e.Alert.SID == 7000002 && e.Message != ""
	})
}

// What a storm of 300,000 alerts, each some 500 bytes as a line, may cost.
const (
	stormMemory = 32 << 20
	stormDisk   = 1 << 20
)

// resident is the daemon's memory in bytes, at its highest.
func (g *gateway) resident(t *testing.T) int64 {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", g.PID()))
	must(t, err)
	_, rest, _ := strings.Cut(string(text), "VmHWM:")
	var kib int64
	_, err = fmt.Sscan(rest, &kib)
	must(t, err)
	return kib << 10
}

// written is the size of all files of the daemon and its engine, in bytes.
func (g *gateway) written(t *testing.T) (bytes int64) {
	t.Helper()
	must(t, filepath.WalkDir(g.Dir, func(_ string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		info, err := e.Info()
		if err == nil {
			bytes += info.Size()
		}
		return err
	}))
	return bytes
}

// since are the events from the mark on.
func (f *feed) since(mark int) []event.Event {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.events[mark:])
}

// TestCanary_AnOverloadedEngineIsNotHung: it drops all that it takes, and cannot take
// all, and reads its rules again. Nothing comes out of it but canaries, and few of those.
func TestCanary_AnOverloadedEngineIsNotHung(t *testing.T) {
	const flood = 15 * time.Second
	rules := `drop udp any any -> any any (msg:"flood"; content:"e2e-flood"; noalert; sid:7000003; rev:1;)` + "\n"
	for i := range 50 { // to make it slow
		rules += fmt.Sprintf(`drop udp any any -> any any (msg:"slow"; pcre:"/(e2e.*){4}never%d/"; noalert; sid:%d; rev:1;)`+"\n", i, 7000100+i)
	}
	g := namespaced(t, setup{IDS: rules, Failure: "{ids: open}"})
	absorb(t, g.Web1, 443)
	p := newProbe(g.App1, g.Web1, 443)
	g.passes(t, g.webWire, p)
	p.payload += "e2e-flood" + strings.Repeat("e2e-floo-", 140)
	frame := p.frame(t)
	fd := packetSocket(t, g.App1.Namespace, g.App1.Interface, 0)
	defer unix.Close(fd)
	status, err := g.Client.Status(t.Context())
	must(t, err)
	mark, before := g.events.mark(), g.counts()
	sent := 0
	reloaded := make(chan error, 1)
	go func() { reloaded <- g.Client.ReloadIDS(t.Context()) }()
	for began := time.Now(); time.Since(began) < flood; {
		switch _, err := unix.Write(fd, frame); err {
		case nil:
			sent++
		case unix.ENOBUFS:
			time.Sleep(time.Millisecond)
		default:
			t.Fatal(err)
		}
	}
	must(t, <-reloaded)
	after := g.counts()
	kind := func(k string) uint64 { return after[k] - before[k] }
	t.Logf("%d packets in %v, %d to the engine; canaries back: %d and %d", sent, flood, kind("apps/check"), kind("ids-out/canary"), kind("ids-in/canary"))
	for _, e := range g.events.since(mark) {
		if e.Type == "ids" && e.Message != "rules reloaded" {
			t.Errorf("the engine is called hung: %s", e.Message)
		}
	}
	if kind("apps/open") > 0 {
		t.Errorf("%d packets passed without the engine", kind("apps/open"))
	}
	if n := kind("ids-out/ids-return"); n > 0 {
		t.Errorf("%d packets were not dropped by the engine", n)
	}
	now, err := g.Client.Status(t.Context())
	must(t, err)
	if now.IDS.PID != status.IDS.PID || now.IDS.State != "up" {
		t.Errorf("the engine was %+v and is %+v", status.IDS, now.IDS)
	}
}
