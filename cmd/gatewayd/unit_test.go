package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/urfave/cli/v2"
)

const appliance = "../../appliance/"

// units are the systemd units, with how many lines of which verbs each has.
var units = map[string]map[string]int{
	"gatewayd.service":           {"ExecStart": 1, "ExecReload": 1},
	"gatewayd-inspector.service": {"ExecStart": 1, "ExecReload": 0},
}

// eachUnit calls fn with the lines of each unit by their key.
func eachUnit(t *testing.T, fn func(t *testing.T, name, text string, settings map[string][]string)) {
	for name := range units {
		t.Run(name, func(t *testing.T) {
			text, settings := unit(t, name)
			fn(t, name, text, settings)
		})
	}
}

func unit(t *testing.T, name string) (text string, settings map[string][]string) {
	t.Helper()
	b, err := os.ReadFile(appliance + name)
	if err != nil {
		t.Fatal(err)
	}
	settings = map[string][]string{}
	for line := range strings.Lines(string(b)) {
		if key, value, ok := strings.Cut(strings.TrimSpace(line), "="); ok && !strings.HasPrefix(key, "#") {
			settings[key] = append(settings[key], value)
		}
	}
	return string(b), settings
}

func TestUnit_RunsVerbsThatThereAre(t *testing.T) {
	eachUnit(t, func(t *testing.T, name, _ string, settings map[string][]string) {
		for key, lines := range units[name] {
			for _, line := range settings[key] {
				checkVerb(t, key, line)
			}
			if len(settings[key]) != lines {
				t.Errorf("%d lines of %s", len(settings[key]), key)
			}
		}
	})
}

// checkVerb checks that a line's verb, and that verb's flags, are there.
func checkVerb(t *testing.T, key, line string) {
	t.Helper()
	commands, flags := newApp(nil, nil, nil).Commands, []cli.Flag(nil)
	for _, word := range strings.Fields(line)[1:] {
		switch {
		case strings.HasPrefix(word, "-"):
			if !slices.ContainsFunc(flags, func(f cli.Flag) bool { return "--"+f.Names()[0] == word }) {
				t.Errorf("%s=%s: there is no flag %s", key, line, word)
			}
		case !strings.HasPrefix(word, "/"):
			c := commandNamed(commands, word)
			if c == nil {
				t.Fatalf("%s=%s: there is no verb %s", key, line, word)
			}
			commands, flags = c.Subcommands, c.Flags
		}
	}
}

func TestUnit_IsAsHardenedAsItSays(t *testing.T) {
	eachUnit(t, func(t *testing.T, name, text string, settings map[string][]string) {
		for key, want := range map[string]string{"Type": "notify", "ProtectSystem": "strict", "NoNewPrivileges": "yes"} {
			if got := strings.Join(settings[key], " "); got != want {
				t.Errorf("%s=%s, want %s", key, got, want)
			}
		}
		analyze := systemdAnalyze(t)
		out, err := exec.Command(analyze, "security", "--no-pager", "--offline=yes", appliance+name).CombinedOutput()
		if err != nil {
			t.Skipf("this systemd cannot judge unit files offline (needs 250): %v: %s", err, out)
		}
		claimed := regexp.MustCompile(`(?m)^# systemd-analyze security: ([0-9.]+)`).FindStringSubmatch(text)
		found := regexp.MustCompile(`Overall exposure level for \S+: ([0-9.]+)`).FindStringSubmatch(string(out))
		if claimed == nil || found == nil || claimed[1] != found[1] {
			t.Errorf("the unit says %q, systemd-analyze %q", claimed, found)
		}
	})
}

func TestUnit_SystemdUnderstandsIt(t *testing.T) {
	eachUnit(t, func(t *testing.T, name, text string, _ map[string][]string) {
		analyze := systemdAnalyze(t)
		// The program need not be installed for this.
		file := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(file, []byte(strings.ReplaceAll(text, "/usr/bin/gatewayd", "/bin/true")), 0o600); err != nil {
			t.Fatal(err)
		}
		out, err := exec.Command(analyze, "verify", "--man=no", file).CombinedOutput()
		if err != nil || strings.Contains(string(out), name+":") {
			t.Errorf("%v: %s", err, out)
		}
	})
}

func systemdAnalyze(t *testing.T) string {
	t.Helper()
	path, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skip("systemd-analyze is not installed")
	}
	return path
}
