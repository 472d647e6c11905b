package loader

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

func TestRemove_LeavesNothing(t *testing.T) {
	for name, clsact := range map[string]bool{"links": false, "filters": true} {
		t.Run(name, func(t *testing.T) {
			g := newGateway(t)
			if clsact {
				_, err := g.d.SetPorts(nil)
				must(t, err)
				g.d.useClsact = true
				g.attach(testPorts)
			}
			g.passes(1)
			for range 2 { // the second time nothing is there
				must(t, Remove(g.pins))
				if _, err := os.Stat(g.pins); !errors.Is(err, os.ErrNotExist) {
					t.Errorf("pin directory: %v", err)
				}
				if exists("vmgbr") {
					t.Error("the bridge is left")
				}
				g.nothingOn("vnic.0")
				g.nothingOn("vnic-1")
				if x := byName(t, "vnic.0").Attrs().Xdp; x != nil && x.Attached {
					t.Error("an XDP program is left")
				}
			}
		})
	}
}

func TestRemove_KeepsOffWhatIsNoPinDirectory(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "precious")
	must(t, os.WriteFile(file, nil, 0o600))
	if err := Remove(dir); err == nil {
		t.Error("no error")
	}
	must(t, func() error { _, err := os.Stat(file); return err }())
}

func TestClsact_IsAdoptedAndFilters(t *testing.T) {
	g := newGateway(t)
	_, err := g.d.SetPorts(nil)
	must(t, err)
	g.d.useClsact = true
	if g.attach(testPorts)[0].Adopted {
		t.Error("adopted what was not there")
	}
	if ids := g.linkIDs(); len(ids) != 2 {
		t.Errorf("links %v, want those of XDP alone", ids)
	}
	if n := len(ourFilters(byName(t, "vnic.0"))); n != 2 {
		t.Errorf("%d filters, want 2", n)
	}
	g.passes(1)
	g.underTraffic(func() {
		if !g.attach(testPorts)[0].Adopted {
			t.Error("filters were not adopted")
		}
	})
	if n := len(ourFilters(byName(t, "vnic.0"))); n != 2 {
		t.Errorf("%d filters after adoption, want 2", n)
	}
}
