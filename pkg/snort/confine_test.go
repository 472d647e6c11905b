package snort

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

func TestSuricata_HasOnlyTheCapabilitiesItNeeds(t *testing.T) {
	w := newWire(t)
	r := run(t, suricataConfigFor(t, w, synFlood))
	pid := r.await(PhaseUp).PID
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	must(t, err)
	// 12 CAP_NET_ADMIN, 13 CAP_NET_RAW, 14 CAP_IPC_LOCK, 23 CAP_SYS_NICE.
	for _, want := range []string{`CapBnd:\t0000000000807000`, `CapEff:\t0000000000807000`, `NoNewPrivs:\t1`} {
		if !regexp.MustCompile(want).Match(status) {
			t.Errorf("not %q in\n%s", want, status)
		}
	}
	// And the test's own process has kept what it had.
	own, err := os.ReadFile("/proc/self/status")
	must(t, err)
	if !strings.Contains(string(own), "NoNewPrivs:\t0") {
		t.Errorf("the daemon itself was confined:\n%s", own)
	}
}

// The engine can read its rules' directories and nothing else of ours: rules
// moved away and linked to are not found, and the old ones stay.
func TestSuricata_ReadsOnlyWhereItsRulesAre(t *testing.T) {
	w := newWire(t)
	c := suricataConfigFor(t, w, rule("one", 1))
	r := run(t, c)
	r.await(PhaseUp)
	elsewhere := filepath.Join(t.TempDir(), "new.rules")
	must(t, os.WriteFile(elsewhere, []byte(rule("one", 2)), 0o600))
	must(t, os.Remove(c.Rules[0]))
	must(t, os.Symlink(elsewhere, c.Rules[0]))
	err := r.Reload(t.Context())
	t.Log(err)
	w.i0.send(udpFrame(t, false, []byte("one")))
	a, ok := r.alert(1000000000)
	t.Log(ok, a.SID)
	if err == nil {
		t.Error("a file outside was read, or missing rules were taken over")
	}
}
