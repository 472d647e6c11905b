package config_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vmgate/vmgate/internal/config"
)

func TestParseInspector_Example(t *testing.T) {
	text, err := os.ReadFile("../../docs/inspector.yaml")
	if err != nil {
		t.Fatal(err)
	}
	c, err := config.ParseInspector("/etc/vmgate/inspector.yaml", text)
	if err != nil {
		t.Fatal(err)
	}
	if c.Certificate != "/etc/vmgate/inspector.crt" || len(c.Clients) != 2 || c.Clients[0].VMs[1] != "web1" || c.HiddenSamples != 3 || len(c.Ways) != 3 {
		t.Errorf("%+v", c)
	}
	// The example shows the defaults.
	least, err := config.ParseInspector("x", []byte("listen: :1\ncertificate: a\nkey: b\nclient-ca: c\nclients: [{name: g, vms: [v]}]"))
	if err != nil {
		t.Fatal(err)
	}
	if strings.Join(least.Users, " ") != strings.Join(c.Users, " ") || strings.Join(least.Ways, " ") != strings.Join(c.Ways, " ") || least.HiddenSamples != c.HiddenSamples {
		t.Errorf("defaults %+v", least)
	}
}

func TestParseInspector_SaysWhatIsWrong(t *testing.T) {
	files, err := filepath.Glob("testdata/bad-inspector/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatal("no bad examples", err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		_, err = config.ParseInspector(filepath.Base(file), text)
		if err == nil {
			t.Fatalf("%s is accepted", file)
		}
		golden(t, strings.TrimSuffix(file, ".yaml")+".txt", err.Error()+"\n")
	}
}

func TestLoadInspector_NeedsItsFiles(t *testing.T) {
	path := filepath.Join(t.TempDir(), "inspector.yaml")
	if err := os.WriteFile(path, []byte("listen: :1\ncertificate: a\nkey: b\nclient-ca: c\nclients: [{name: g, vms: [v]}]"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := config.LoadInspector(path)
	for _, want := range []string{"inspector.yaml:2:14: certificate: cannot read", ":3:6: key: cannot read", ":4:12: client-ca: cannot read"} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("no %q in\n%v", want, err)
		}
	}
}

func FuzzParseInspector(f *testing.F) {
	text, err := os.ReadFile("../../docs/inspector.yaml")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Fuzz(func(t *testing.T, text []byte) {
		c, err := config.ParseInspector("x", text)
		if err == nil && (len(c.Clients) == 0 || c.Listen == "" || len(c.Ways) == 0) {
			t.Errorf("%+v", c)
		}
	})
}
