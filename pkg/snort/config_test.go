package snort

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestNew_RefusesWhatCannotWork(t *testing.T) {
	script := func(text string) string {
		path := filepath.Join(t.TempDir(), "engine")
		must(t, os.WriteFile(path, []byte("#!/bin/sh\n"+text+"\n"), 0o700))
		return path
	}
	good := Config{
		Engine: EngineSnort, Binary: script("echo Version 3.1.0"), User: "root", In: "i0p", Out: "i1p",
		Rules: []string{ruleFile(t, "x")}, Dir: runDir(t), Log: testLog(t),
	}
	if _, err := New(good); err != nil {
		t.Fatalf("the good one: %v", err)
	}
	for _, c := range []struct {
		change func(*Config)
		says   string
	}{
		{func(c *Config) { c.Engine = "zeek" }, "suricata or snort"},
		{func(c *Config) { c.User = "no-such-user" }, "no-such-user"},
		{func(c *Config) { c.Threads = 65 }, "65 threads"},
		{func(c *Config) { c.In = "" }, "device name"},
		{func(c *Config) { c.In = "a;b" }, "device name"},
		{func(c *Config) { c.Out = c.In }, "two devices"},
		{func(c *Config) { c.MTU = 100 }, "MTU"},
		{func(c *Config) { c.MTU = 1 << 17 }, "MTU"},
		{func(c *Config) { c.HomeNets = []netip.Prefix{{}} }, "home network"},
		{func(c *Config) { c.Rules = nil }, "no rule files"},
		{func(c *Config) { c.Rules = []string{"local.rules"} }, "absolute"},
		{func(c *Config) { c.Rules = []string{"/nowhere/x.rules"} }, "/nowhere/x.rules"},
		{func(c *Config) { c.Rules = []string{t.TempDir()} }, "no regular file"},
		{func(c *Config) { c.Dir = "run" }, "absolute"},
		{func(c *Config) { c.Dir = "/" }, "of its own"},
		{func(c *Config) { c.Dir = "/run/'x" }, "quotes"},
		{func(c *Config) { c.Dir = "/run/x/../y" }, "clean"},
		{func(c *Config) { c.Dir = "/run/" + strings.Repeat("x", 110) }, "shorter"},
		{func(c *Config) { c.Binary = "/nowhere/snort" }, "/nowhere/snort"},
		{func(c *Config) { c.Binary = script("echo Version 2.9.20") }, "too old"},
		{func(c *Config) { c.Binary = script("echo hello") }, "version"},
		{func(c *Config) { c.Binary = script("exit 3") }, "exit status 3"},
		{func(c *Config) { c.Engine = EngineSuricata }, "version"},
	} {
		bad := good
		c.change(&bad)
		_, err := New(bad)
		if err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("error %v, want one about %q", err, c.says)
		}
	}
	if _, err := os.Stat(good.Dir); !os.IsNotExist(err) {
		t.Error("New has written something")
	}
}

// Reload needs an engine, and a context that ends ends it.
func TestReload_WithoutEngine(t *testing.T) {
	w := newWire(t)
	e, err := New(fakeConfig(t, w))
	must(t, err)
	if err := e.Reload(t.Context()); err == nil || !strings.Contains(err.Error(), "not run") {
		t.Errorf("error %v", err)
	}
}
