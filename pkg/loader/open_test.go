package loader

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
)

func TestOpen_ExplainsAMissingBPFFileSystem(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "b")
	_, err := Open(Options{Pins: dir})
	if err == nil || !strings.Contains(err.Error(), "mount -t bpf") {
		t.Errorf("error %v", err)
	}
	if _, err := os.Stat(dir); err == nil {
		t.Error("it left a directory behind")
	}
	if _, err := Open(Options{Pins: "vmgate"}); err == nil || !strings.Contains(err.Error(), "absolute") {
		t.Errorf("error %v for a relative path", err)
	}
}

func TestOpen_NamesThePinnedMapThatDoesNotFit(t *testing.T) {
	pins := pinsDir(t)
	must(t, os.Mkdir(pins, 0o700))
	m, err := ebpf.NewMap(&ebpf.MapSpec{Type: ebpf.Hash, KeySize: 4, ValueSize: 4, MaxEntries: 8})
	must(t, err)
	must(t, m.Pin(filepath.Join(pins, "flows")))
	must(t, m.Close())
	_, err = Open(Options{Pins: pins})
	if err == nil || !strings.Contains(err.Error(), pins+"/flows") || !strings.Contains(err.Error(), "start afresh") {
		t.Errorf("error %v", err)
	}
}

func TestOpen_AdoptsWhatTheMapsHold(t *testing.T) {
	pins := pinsDir(t)
	d, err := Open(Options{Pins: pins})
	must(t, err)
	want := Rule{Verdict: forward, Cause: 1, Digest: 99, Name: "web"}
	must(t, d.SetRule(5, want))
	must(t, d.Close())
	d, err = Open(Options{Pins: pins})
	must(t, err)
	defer d.Close()
	rules := d.Rules()
	for id, r := range rules.All() {
		if id != 5 || r != want {
			t.Errorf("rule %d is %+v", id, r)
		}
	}
	must(t, rules.Err())
	for what, verdict := range map[string]func() (uint32, error){
		"no VM":    func() (uint32, error) { e, err := d.VM(0); return e.Verdict, err },
		"no owner": func() (uint32, error) { e, err := d.Owner(0); return e.Verdict, err },
	} {
		if v, err := verdict(); err != nil || v != forward {
			t.Errorf("%s has verdict %d, error %v", what, v, err)
		}
	}
	for _, err := range []error{d.SetVM(0, VMEntry{}), d.SetOwner(0, Owner{}), d.SetRule(0, Rule{})} {
		if err == nil {
			t.Error("id 0 can be overwritten")
		}
	}
}
