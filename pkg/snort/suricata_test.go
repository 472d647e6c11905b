package snort

import (
	"bytes"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The rule of the paper's SYN flood, see docs: alerts and drops from the 11th
// SYN of a source within a minute.
const synFlood = `drop tcp any any -> 192.168.1.74 any (msg:"TCP sync flood"; flow:stateless; flags:S; detection_filter: track by_src, count 10, seconds 60; sid:1000001; rev:1;)
`

func suricataConfigFor(t testing.TB, w *wire, rules string) Config {
	t.Helper()
	if _, err := exec.LookPath("suricata"); err != nil {
		t.Skip("skipped: suricata is not installed")
	}
	return Config{
		Engine: EngineSuricata, NetNS: w.engineNS, In: "i0p", Out: "i1p", MTU: 1500,
		Rules: []string{ruleFile(t, rules)}, HomeNets: []netip.Prefix{netip.MustParsePrefix("192.168.1.0/24")},
		Dir: runDir(t), Log: testLog(t),
	}
}

// Also the second answer to "is it up": what is sent the moment that Run says
// so must arrive.
func TestSuricata_FramesComeOutAsTheyWentIn(t *testing.T) {
	t.Parallel()
	w := newWire(t)
	r := run(t, suricataConfigFor(t, w, synFlood))
	r.await(PhaseUp)
	canary := append(append(append([]byte{}, macB...), macA...), 0x88, 0xb5)
	canary = append(canary, bytes.Repeat([]byte{0xa5}, 50)...)
	for name, frame := range map[string][]byte{
		"udp":     udpFrame(t, false, []byte("hello")),
		"mtu":     udpFrame(t, false, bytes.Repeat([]byte("x"), 1472)),
		"non-IP":  canary,
		"vlan":    tcpFrame(t, false, 5, tcpSYN(1234), nil),
		"vlanmtu": tcpFrame(t, false, 4094, tcpSYN(1235), bytes.Repeat([]byte("y"), 1460)),
	} {
		w.i0.send(frame)
		if !w.i1.arrives(frame, 2*time.Second) {
			t.Errorf("%s: into i0, not out of i1", name)
		}
		w.i1.send(frame)
		if !w.i0.arrives(frame, 2*time.Second) {
			t.Errorf("%s: into i1, not out of i0", name)
		}
	}
}

func TestSuricata_SYNFloodIsDroppedFromTheEleventhOn(t *testing.T) {
	t.Parallel()
	w := newWire(t)
	r := run(t, suricataConfigFor(t, w, synFlood))
	r.await(PhaseUp)
	for i := range 10 {
		frame := syn(t, uint16(2000+i), 7)
		w.i0.send(frame)
		if !w.i1.arrives(frame, 2*time.Second) {
			t.Fatalf("SYN %d of 10 did not pass", i+1)
		}
	}
	if a, ok := r.alert(50 * time.Millisecond); ok {
		t.Fatalf("alert before the 11th SYN: %+v", a)
	}
	frame := syn(t, 2010, 7)
	sent := time.Now()
	w.i0.send(frame)
	a, ok := r.alert(2 * time.Second)
	t.Logf("packet to alert: %v", time.Since(sent))
	if !ok {
		t.Fatal("no alert for the 11th SYN")
	}
	if w.i1.arrives(frame, 100*time.Millisecond) {
		t.Error("the 11th SYN passed")
	}
	want := Alert{
		Engine: EngineSuricata, Action: ActionDrop, GID: 1, SID: 1000001, Rev: 1, Message: "TCP sync flood", Priority: 3, Proto: 6,
		Src: netip.MustParseAddrPort("192.168.1.10:2010"), Dst: netip.MustParseAddrPort("192.168.1.74:80"), SrcMAC: macA, DstMAC: macB,
	}
	if age := time.Since(a.Time); age < 0 || age > 10*time.Second {
		t.Errorf("alert's time is %v ago", age)
	}
	if a.Raw == "" {
		t.Error("alert without its line")
	}
	a.Raw, a.Time = "", time.Time{}
	if got, want := fmt.Sprintf("%+v", a), fmt.Sprintf("%+v", want); got != want {
		t.Errorf("alert\n got %s\nwant %s", got, want)
	}
	if s := r.State(); s.Lines == 0 || s.Malformed != 0 || s.Lost != 0 {
		t.Errorf("counters %+v", s)
	}
}

func TestSuricata_KilledEngineIsReplacedAndPassesAgain(t *testing.T) {
	t.Parallel()
	w := newWire(t)
	r := run(t, suricataConfigFor(t, w, synFlood))
	first := r.await(PhaseUp)
	began := time.Now()
	must(t, unix.Kill(first.PID, unix.SIGKILL))
	down := r.await(PhaseDown)
	t.Logf("noticed after %v: %s", time.Since(began), down.Detail)
	second := r.await(PhaseUp)
	t.Logf("up again after %v", time.Since(began))
	if second.PID == first.PID || second.Restarts != 1 {
		t.Errorf("first %+v, second %+v", first, second)
	}
	if d := time.Since(began); d > 10*time.Second {
		t.Errorf("it took %v", d)
	}
	frame := udpFrame(t, false, []byte("again"))
	w.i0.send(frame)
	if !w.i1.arrives(frame, 2*time.Second) {
		t.Error("no traffic after the restart")
	}
	for i := range 11 { // alerts come from the new one as well
		w.i0.send(syn(t, uint16(3000+i), 1))
	}
	if _, ok := r.alert(2 * time.Second); !ok {
		t.Error("no alert after the restart")
	}
}

// Flows are diverted to the engine while they live: its first packet of one is
// anything but a SYN.
func TestSuricata_ConnectionSurvivesItsDiversion(t *testing.T) {
	t.Parallel()
	w := newWire(t)
	r := run(t, suricataConfigFor(t, w, synFlood+`alert tcp any any -> any any (msg:"marker"; content:"find-me"; sid:7;)
`))
	r.await(PhaseUp)
	seq, ack := uint32(1000), uint32(5000)
	for i := range 5 {
		request := []byte(fmt.Sprintf("request %d", i))
		if i == 4 {
			request = []byte("now find-me")
		}
		out := tcpFrame(t, false, 0, tcpData(seq, ack, false), request)
		w.i0.send(out)
		if !w.i1.arrives(out, 2*time.Second) {
			t.Fatalf("request %d was lost", i)
		}
		seq += uint32(len(request))
		answer := []byte(fmt.Sprintf("answer %d", i))
		back := tcpFrame(t, true, 0, tcpData(ack, seq, true), answer)
		w.i1.send(back)
		if !w.i0.arrives(back, 2*time.Second) {
			t.Fatalf("answer %d was lost", i)
		}
		ack += uint32(len(answer))
	}
	if a, ok := r.alert(2 * time.Second); !ok || a.SID != 7 || a.Action != ActionAlert {
		t.Errorf("a midstream connection is not inspected: %+v", a)
	}
}

// Not parallel: it counts what the test's own process has open.
func TestSuricata_StopLeavesNothing(t *testing.T) {
	w := newWire(t)
	before := openHere(t)
	c := suricataConfigFor(t, w, synFlood)
	r := run(t, c)
	pid := r.await(PhaseUp).PID
	began := time.Now()
	must(t, r.stop())
	t.Logf("stopped in %v", time.Since(began))
	if err := unix.Kill(pid, 0); err != unix.ESRCH {
		t.Errorf("process %d is still there: %v", pid, err)
	}
	if _, err := os.Stat(c.Dir); !os.IsNotExist(err) {
		left, _ := filepath.Glob(c.Dir + "/*")
		t.Errorf("left in the directory: %v", left)
	}
	if s := r.State(); s.Phase != PhaseDown || s.PID != 0 {
		t.Errorf("state after the stop: %+v", s)
	}
	// The runtime's own may take a moment to go.
	for deadline := time.Now().Add(2 * time.Second); openHere(t) != before; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			stacks := make([]byte, 1<<16)
			t.Fatalf("open before: %s, after: %s\n%s", before, openHere(t), stacks[:runtime.Stack(stacks, true)])
		}
	}
}

// openHere counts this process's files and goroutines.
func openHere(t *testing.T) string {
	t.Helper()
	files, err := os.ReadDir("/proc/self/fd")
	must(t, err)
	return fmt.Sprintf("%d files, %d goroutines", len(files), runtime.NumGoroutine())
}

// Also where the configuration says less than the devices can: frames must not
// be cut.
func TestSuricata_JumboFrames(t *testing.T) {
	t.Parallel()
	w := newWireMTU(t, 9000)
	r := run(t, suricataConfigFor(t, w, synFlood))
	r.await(PhaseUp)
	frame := udpFrame(t, false, bytes.Repeat([]byte("j"), 9000-28))
	w.i0.send(frame)
	if !w.i1.arrives(frame, 2*time.Second) {
		t.Error("a frame of 9014 bytes is lost")
	}
}

func TestSuricata_CheckNamesFileAndLine(t *testing.T) {
	t.Parallel()
	w := newWire(t)
	c := suricataConfigFor(t, w, synFlood)
	good, err := New(c)
	must(t, err)
	must(t, good.Check(t.Context()))

	c.Rules = append(c.Rules, ruleFile(t, "# fine\n"+`alert tcp any any -> any any (msg:"x"; contennt:"y"; sid:9;)`+"\n"))
	bad, err := New(c)
	must(t, err)
	err = bad.Check(t.Context())
	if err == nil {
		t.Fatal("a bad rule was accepted")
	}
	t.Log(err)
	for _, part := range []string{"contennt", c.Rules[1], "line 2"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%q does not name %q", err, part)
		}
	}
	if _, err := os.Stat(c.Dir); !os.IsNotExist(err) {
		t.Error("the check left its directory")
	}
}

func TestSuricata_ReloadTakesGoodRulesAndKeepsTheOldForBad(t *testing.T) {
	t.Parallel()
	w := newWire(t)
	c := suricataConfigFor(t, w, rule("one", 1))
	r := run(t, c)
	pid := r.await(PhaseUp).PID
	alerts := func(text string, sid uint32) {
		t.Helper()
		w.i0.send(udpFrame(t, false, []byte(text)))
		a, ok := r.alert(2 * time.Second)
		if !ok || a.SID != sid {
			t.Fatalf("%s: alert %+v, want sid %d", text, a, sid)
		}
	}
	alerts("one", 1)
	must(t, os.WriteFile(c.Rules[0], []byte(rule("one", 2)), 0o600))
	must(t, r.Reload(t.Context()))
	alerts("one", 2)
	must(t, os.WriteFile(c.Rules[0], []byte(rule("one", 3)+"alert nonsense\n"), 0o600))
	err := r.Reload(t.Context())
	if err == nil || !strings.Contains(err.Error(), "line 2") {
		t.Fatalf("bad rules: %v", err)
	}
	t.Log(err)
	alerts("one", 2)
	if s := r.State(); s.PID != pid || s.Restarts != 0 {
		t.Errorf("the engine was restarted: %+v", s)
	}
	// Nor does a new engine find the bad ones.
	must(t, unix.Kill(pid, unix.SIGKILL))
	r.await(PhaseDown)
	r.await(PhaseUp)
	alerts("one", 2)
}

func TestSuricata_BadRulesAtTheStartAreToldAndTriedAgain(t *testing.T) {
	t.Parallel()
	w := newWire(t)
	c := suricataConfigFor(t, w, "alert nonsense\n")
	r := run(t, c)
	s := r.await(PhaseDown)
	for _, part := range []string{c.Rules[0], "line 1"} {
		if !strings.Contains(s.Detail, part) {
			t.Errorf("%q does not name %q", s.Detail, part)
		}
	}
	must(t, os.WriteFile(c.Rules[0], []byte(synFlood), 0o600))
	r.await(PhaseUp)
}

// A daemon that was killed leaves its engine; the next one must not be kept from
// the devices by it.
func TestSuricata_EngineOfAKilledDaemonIsEndedFirst(t *testing.T) {
	t.Parallel()
	w := newWire(t)
	c := suricataConfigFor(t, w, synFlood)
	old := run(t, c)
	pid := old.await(PhaseUp).PID

	second, err := New(c)
	must(t, err)
	if err := second.Run(t.Context(), func(State) {}, func(Alert) {}); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Fatalf("two daemons in one directory: %v", err)
	}
	// As after a kill: the lock is free, the pid file is there, the engine lives.
	left, err := endPrevious(c.Dir)
	must(t, err)
	if left != pid {
		t.Errorf("ended process %d, want %d", left, pid)
	}
	if s := old.await(PhaseDown); s.Detail == "" {
		t.Error("its end was not told")
	}
	// A pid that another process has now is left alone.
	must(t, os.WriteFile(filepath.Join(c.Dir, pidFile), []byte(fmt.Sprintf("%d 1\n", os.Getpid())), 0o600))
	left, err = endPrevious(c.Dir)
	if left != 0 || err != nil {
		t.Errorf("a stranger's pid: %d, %v", left, err)
	}
}

func rule(content string, sid int) string {
	return fmt.Sprintf("alert udp any any -> any any (msg:\"%s %d\"; content:\"%s\"; sid:%d;)\n", content, sid, content, sid)
}

// BenchmarkSuricata_PacketToAlert sends one packet at a time.
func BenchmarkSuricata_PacketToAlert(b *testing.B) {
	w := newWire(b)
	r := run(b, suricataConfigFor(b, w, rule("find-me", 1)))
	r.await(PhaseUp)
	frame := udpFrame(b, false, []byte("find-me"))
	var took []time.Duration
	for b.Loop() {
		b.StopTimer() // the pace of an attack that is noticed, not of a flood
		time.Sleep(2 * time.Millisecond)
		b.StartTimer()
		sent := time.Now()
		w.i0.send(frame)
		if _, ok := r.alert(2 * time.Second); !ok {
			b.Fatal("no alert")
		}
		took = append(took, time.Since(sent))
	}
	if s := r.State(); s.Lines != uint64(len(took)) {
		b.Errorf("%d packets, but %d lines", len(took), s.Lines)
	}
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)/2].Microseconds()), "us-median")
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "us-p99")
}

func BenchmarkParseEve(b *testing.B) {
	line, err := os.ReadFile("testdata/eve.json")
	must(b, err)
	for b.Loop() {
		if _, _, err := parseEve(line); err != nil {
			b.Fatal(err)
		}
	}
}
