package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

const unitFile = "../../appliance/gatewayd.service"

// unit returns the lines of the systemd unit by their key.
func unit(t *testing.T) (text string, settings map[string][]string) {
	t.Helper()
	b, err := os.ReadFile(unitFile)
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
	_, settings := unit(t)
	for _, key := range []string{"ExecStart", "ExecReload"} {
		for _, line := range settings[key] {
			words := strings.Fields(line)
			app := newApp(nil, nil, nil)
			c := commandNamed(app.Commands, words[1])
			if c == nil {
				t.Fatalf("%s=%s: there is no such verb", key, line)
			}
			for _, word := range words[2:] {
				if !strings.HasPrefix(word, "-") {
					continue
				}
				known := false
				for _, f := range c.Flags {
					known = known || "--"+f.Names()[0] == word
				}
				if !known {
					t.Errorf("%s=%s: %s has no flag %s", key, line, words[1], word)
				}
			}
		}
		if len(settings[key]) != 1 {
			t.Errorf("%d lines of %s", len(settings[key]), key)
		}
	}
}

func TestUnit_IsAsHardenedAsItSays(t *testing.T) {
	text, settings := unit(t)
	for key, want := range map[string]string{"Type": "notify", "ProtectSystem": "strict", "NoNewPrivileges": "yes"} {
		if got := strings.Join(settings[key], " "); got != want {
			t.Errorf("%s=%s, want %s", key, got, want)
		}
	}
	analyze := systemdAnalyze(t)
	out, err := exec.Command(analyze, "security", "--no-pager", "--offline=yes", unitFile).CombinedOutput()
	if err != nil {
		t.Skipf("this systemd cannot judge unit files offline (needs 250): %v: %s", err, out)
	}
	claimed := regexp.MustCompile(`(?m)^# systemd-analyze security: ([0-9.]+)`).FindStringSubmatch(text)
	found := regexp.MustCompile(`Overall exposure level for \S+: ([0-9.]+)`).FindStringSubmatch(string(out))
	if claimed == nil || found == nil || claimed[1] != found[1] {
		t.Errorf("the unit says %q, systemd-analyze %q", claimed, found)
	}
}

func TestUnit_SystemdUnderstandsIt(t *testing.T) {
	analyze := systemdAnalyze(t)
	text, _ := unit(t)
	// The program need not be installed for this.
	file := filepath.Join(t.TempDir(), "gatewayd.service")
	if err := os.WriteFile(file, []byte(strings.ReplaceAll(text, "/usr/bin/gatewayd", "/bin/true")), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(analyze, "verify", "--man=no", file).CombinedOutput()
	if err != nil || strings.Contains(string(out), "gatewayd.service:") {
		t.Errorf("%v: %s", err, out)
	}
}

func systemdAnalyze(t *testing.T) string {
	t.Helper()
	path, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skip("systemd-analyze is not installed")
	}
	return path
}
