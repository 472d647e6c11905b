package snort

import (
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// realSnort finds Snort 3, which no distribution packages.
func realSnort(t *testing.T, w *wire, rules string) Config {
	t.Helper()
	name := os.Getenv("VMGATE_SNORT")
	if name == "" {
		name = "snort"
	}
	path, err := exec.LookPath(name)
	if err != nil {
		t.Skip("skipped: Snort 3 is not installed; put it on PATH or name it in VMGATE_SNORT")
	}
	return Config{
		Engine: EngineSnort, Binary: path, NetNS: w.engineNS, In: "i0p", Out: "i1p",
		Rules: []string{ruleFile(t, rules)}, HomeNets: []netip.Prefix{netip.MustParsePrefix("192.168.1.0/24")},
		Dir: runDir(t), Log: testLog(t),
	}
}

func TestSnort_RealEngineDropsTheFlood(t *testing.T) {
	w := newWire(t)
	r := run(t, realSnort(t, w, synFlood))
	r.await(PhaseUp)
	for i := range 10 {
		frame := syn(t, uint16(2000+i), 7)
		w.i0.send(frame)
		if !w.i1.arrives(frame, 2*time.Second) {
			t.Fatalf("SYN %d of 10 did not pass", i+1)
		}
	}
	frame := syn(t, 2010, 7)
	w.i0.send(frame)
	a, ok := r.alert(2 * time.Second)
	if !ok || a.Action != ActionDrop || a.SID != 1000001 || a.SrcMAC.String() != macA.String() || a.Src != netip.MustParseAddrPort("192.168.1.10:2010") {
		t.Errorf("alert %+v", a)
	}
	if w.i1.arrives(frame, 100*time.Millisecond) {
		t.Error("the 11th SYN passed")
	}
}

func TestSnort_RealCheckNamesFileAndLine(t *testing.T) {
	w := newWire(t)
	c := realSnort(t, w, "alert nonsense\n")
	e, err := New(c)
	must(t, err)
	// The line where Snort noticed, which may be the one behind the rule.
	if err := e.Check(t.Context()); err == nil || !strings.Contains(err.Error(), c.Rules[0]+":") {
		t.Errorf("error %v", err)
	}
}
