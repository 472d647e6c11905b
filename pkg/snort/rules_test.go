package snort

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestEngine_CheckNamesFileAndLine(t *testing.T) {
	eachEngine(t, func(t *testing.T, engine string) {
		t.Parallel()
		w := newWire(t)
		c := configFor(t, engine, w, synFlood)
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
		for _, part := range []string{"contennt", c.Rules[1], lineIn(engine, 2)} {
			if !strings.Contains(err.Error(), part) {
				t.Errorf("%q does not name %q", err, part)
			}
		}
		if _, err := os.Stat(c.Dir); !os.IsNotExist(err) {
			t.Error("the check left its directory")
		}
	})
}

func TestEngine_ReloadTakesGoodRulesAndKeepsTheOldForBad(t *testing.T) {
	eachEngine(t, func(t *testing.T, engine string) {
		t.Parallel()
		w := newWire(t)
		c := configFor(t, engine, w, rule("one", 1))
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
		if err == nil || !strings.Contains(err.Error(), lineIn(engine, 2)) {
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
	})
}

func TestEngine_BadRulesAtTheStartAreToldAndTriedAgain(t *testing.T) {
	eachEngine(t, func(t *testing.T, engine string) {
		t.Parallel()
		w := newWire(t)
		c := configFor(t, engine, w, "alert nonsense\n")
		r := run(t, c)
		s := r.await(PhaseDown)
		for _, part := range []string{c.Rules[0], lineIn(engine, 1)} {
			if !strings.Contains(s.Detail, part) {
				t.Errorf("%q does not name %q", s.Detail, part)
			}
		}
		must(t, os.WriteFile(c.Rules[0], []byte(synFlood), 0o600))
		r.await(PhaseUp)
	})
}

// lineIn is how an engine names a line of a rule file. Snort names the one where it
// noticed, which may be the one behind the rule.
func lineIn(engine string, line int) string {
	if engine == EngineSnort {
		return ".rules:"
	}
	return fmt.Sprintf("line %d", line)
}

func rule(content string, sid int) string {
	return fmt.Sprintf("alert udp any any -> any any (msg:\"%s %d\"; content:\"%s\"; sid:%d;)\n", content, sid, content, sid)
}
