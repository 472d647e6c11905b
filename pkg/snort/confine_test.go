package snort

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

func TestEngine_HasOnlyTheCapabilitiesItNeeds(t *testing.T) {
	eachEngine(t, func(t *testing.T, engine string) {
		t.Parallel()
		w := newWire(t)
		r := run(t, configFor(t, engine, w, synFlood))
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
	})
}

// The sandbox lets the engine read its own directory: a rule file that is only
// linked to from there cannot be read, whoever owns it.
func TestSuricata_ReadsOnlyItsOwnDirectory(t *testing.T) {
	t.Parallel()
	w := newWire(t)
	c := suricataConfigFor(t, w, rule("one", 1))
	r := run(t, c)
	r.await(PhaseUp)
	copied := filepath.Join(c.Dir, rulesDir, "0.rules")
	must(t, os.Remove(copied))
	must(t, os.Symlink(c.Rules[0], copied))
	err := reloadSuricata(t.Context(), filepath.Join(c.Dir, suricataCommand))
	if err == nil {
		t.Fatal("a file outside was read, or missing rules were taken over")
	}
	if s := r.await(PhaseDown); !strings.Contains(s.Detail, "ermission denied") {
		t.Errorf("the reason: %s", s.Detail)
	}
}
