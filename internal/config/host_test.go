package config_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/vmgate/vmgate/internal/config"
)

// writeConfig writes a configuration into a directory of its own.
func writeConfig(t *testing.T, text string) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "gateway.yaml")
	write(t, path, text)
	return path
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestLoad_FindsRuleFilesBesideTheConfiguration(t *testing.T) {
	path := writeConfig(t, "ids: {engine: suricata, rules: [local.rules]}\n")
	_, err := config.Load(path)
	if err == nil || !strings.HasPrefix(err.Error(), path+":1:33: ids.rules[0]: cannot read the rule file: ") {
		t.Errorf("missing: %v", err)
	}
	rules := filepath.Join(filepath.Dir(path), "local.rules")
	write(t, rules, "")
	c, err := config.Load(path)
	if err != nil {
		t.Fatal(err)
	}
	if got := c.IDS.Rules[0]; got != rules {
		t.Errorf("rules are %s, want %s", got, rules)
	}
}

func TestLoad_DoesNotWaitForAPipe(t *testing.T) {
	path := writeConfig(t, "ids: {engine: suricata, rules: [pipe]}\n")
	if err := syscall.Mkfifo(filepath.Join(filepath.Dir(path), "pipe"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := config.Load(path); err == nil || !strings.Contains(err.Error(), "no regular file") {
		t.Errorf("got %v", err)
	}
}

func TestLoad_MissingFile(t *testing.T) {
	_, err := config.Load("/nonexistent/gateway.yaml")
	if !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}

func TestCheckHost_NamesWhatIsMissing(t *testing.T) {
	dir := t.TempDir()
	memory := filepath.Join(dir, "here.ram")
	write(t, memory, "x")
	c, err := config.Parse("gateway.yaml", []byte(`segments:
  - {name: loop, vnic: lo}
  - {name: gone, vnic: vmgate-none0}
vms:
  - {id: a, segment: loop, macs: ["52:54:00:00:00:01"], addresses: {learn: true}, memory: {file: `+memory+`}}
  - id: b
    segment: loop
    macs: ["52:54:00:00:00:02"]
    addresses: {learn: true}
    memory:
      file: /nonexistent/b.ram
  - {id: c, segment: loop, macs: ["52:54:00:00:00:03"], addresses: {learn: true}, memory: {file: `+dir+`}}
`))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, err := range c.CheckHost() {
		first, _, _ := strings.Cut(err.Error(), "\n")
		got = append(got, strings.ReplaceAll(first, dir, "DIR"))
	}
	want := []string{
		`gateway.yaml:3:24: segment gone: there is no network device "vmgate-none0" here: attach the vNIC, or correct its name (ip link)`,
		`gateway.yaml:11:13: VM b: there is no memory file /nonexistent/b.ram: start the VM with -object memory-backend-file,mem-path=/nonexistent/b.ram,share=on, or write memory: none`,
		`gateway.yaml:12:98: VM c: cannot read its memory: DIR is no regular file`,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}
