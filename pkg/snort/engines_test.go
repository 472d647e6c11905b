package snort

import (
	"net/netip"
	"os"
	"os/exec"
	"testing"
)

// eachEngine runs a test with Suricata, and with Snort 3 where that is: no
// distribution packages it, so it is found on PATH or named in VMGATE_SNORT.
func eachEngine(t *testing.T, test func(t *testing.T, engine string)) {
	t.Helper()
	for _, engine := range []string{EngineSuricata, EngineSnort} {
		t.Run(engine, func(t *testing.T) { test(t, engine) })
	}
}

// binaryOf finds an engine's program, or skips the test.
func binaryOf(t testing.TB, engine string) string {
	t.Helper()
	name, hint := engine, ""
	if engine == EngineSnort {
		hint = " (Snort 3: put it on PATH, or name it in VMGATE_SNORT)"
		if named := os.Getenv("VMGATE_SNORT"); named != "" {
			name = named
		}
	}
	path, err := exec.LookPath(name)
	if err != nil {
		t.Skipf("skipped: %s is not installed%s", engine, hint)
	}
	return path
}

// configFor runs an engine on a wire.
func configFor(t testing.TB, engine string, w *wire, rules string) Config {
	t.Helper()
	return Config{
		Engine: engine, Binary: binaryOf(t, engine), NetNS: w.engineNS, In: "i0p", Out: "i1p", MTU: 1500,
		Rules: []string{ruleFile(t, rules)}, HomeNets: []netip.Prefix{netip.MustParsePrefix("192.168.1.0/24")},
		Dir: runDir(t), Log: testLog(t),
	}
}

func suricataConfigFor(t testing.TB, w *wire, rules string) Config {
	t.Helper()
	return configFor(t, EngineSuricata, w, rules)
}
