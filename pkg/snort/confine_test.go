package snort

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
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
		nobody, err := findAccount("")
		must(t, err)
		if nobody.uid == 0 {
			t.Fatal("it would run as root")
		}
		id := fmt.Sprintf(`\t%[1]d\t%[1]d\t%[1]d\t%[1]d`, nobody.uid)
		// 13 is CAP_NET_RAW.
		for _, want := range []string{"Uid:" + id, fmt.Sprintf(`Gid:\t%d`, nobody.gid), `Groups:\t ?\n`, `CapBnd:\t0000000000002000`, `CapEff:\t0000000000002000`, `NoNewPrivs:\t1`} {
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

// What it writes is in a directory of its own: it can change neither its rules nor
// its configuration, and the daemon follows none of its links.
func TestEngine_CannotWriteItsConfiguration(t *testing.T) {
	eachEngine(t, func(t *testing.T, engine string) {
		t.Parallel()
		w := newWire(t)
		c := configFor(t, engine, w, synFlood)
		r := run(t, c)
		r.await(PhaseUp)
		err := filepath.WalkDir(c.Dir, func(path string, entry os.DirEntry, err error) error {
			must(t, err)
			info, err := entry.Info()
			must(t, err)
			owner := info.Sys().(*syscall.Stat_t).Uid
			switch inside := strings.HasPrefix(path, outOf(c.Dir)); {
			case inside && owner == 0, !inside && owner != 0:
				t.Errorf("%s is user %d's", path, owner)
			case !inside && info.Mode().Perm()&0o022 != 0 && info.Mode().Type() != os.ModeSocket:
				t.Errorf("%s has mode %v", path, info.Mode())
			}
			return nil
		})
		must(t, err)
	})
}

func TestWatchFiles_FollowsNoLinkAndReadsNobodyElsesFile(t *testing.T) {
	secret := filepath.Join(t.TempDir(), "secret")
	must(t, os.WriteFile(secret, []byte("line\n"), 0o600))
	for name, plant := range map[string]func(path string) error{
		"symbolic link": func(path string) error { return os.Symlink(secret, path) },
		"hard link":     func(path string) error { return os.Link(secret, path) },
		"pipe":          func(path string) error { return syscall.Mkfifo(path, 0o600) },
	} {
		dir := t.TempDir()
		must(t, plant(filepath.Join(dir, "0_alert_json.txt")))
		w, err := watchFiles(dir, snortAlerts, &account{"another", 12345, 12345}, &splitter{line: func(line []byte) { t.Errorf("%s: read %q", name, line) }})
		must(t, err)
		if err := w.serve(t.Context()); err == nil {
			t.Errorf("%s: followed", name)
		}
	}
}

// The sandbox lets the engine read its own directory: a rule file that is only
// linked to from there cannot be read, whoever owns it.
func TestSuricata_ReadsOnlyItsOwnDirectory(t *testing.T) {
	t.Parallel()
	w := newWire(t)
	c := suricataConfigFor(t, w, rule("one", 1))
	r := run(t, c)
	r.await(PhaseUp)
	outside := filepath.Join(filepath.Dir(c.Dir), "outside.rules")
	must(t, os.WriteFile(outside, []byte(rule("one", 2)), 0o644))
	copied := filepath.Join(c.Dir, rulesDir, "0.rules")
	must(t, os.Remove(copied))
	must(t, os.Symlink(outside, copied))
	if err := reloadSuricata(t.Context(), filepath.Join(outOf(c.Dir), suricataCommand)); err == nil {
		t.Fatal("a file outside was read, or missing rules were taken over")
	}
	if s := r.await(PhaseDown); !strings.Contains(s.Detail, "ermission denied") {
		t.Errorf("the reason: %s", s.Detail)
	}
}
