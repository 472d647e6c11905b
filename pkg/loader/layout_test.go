package loader

import (
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"

	"github.com/vmgate/vmgate/bpf"
)

// A build with another meaning of the same bytes: the map that it pinned is of
// the right type and sizes all the same.
func TestOpen_RefusesAMapWhoseValuesMeanSomethingElse(t *testing.T) {
	for name, change := range map[string]func(*btf.Struct){
		"member":  func(owner *btf.Struct) { owner.Members[2].Name, owner.Members[3].Name = "pid", "vm" },
		"verdict": func(owner *btf.Struct) { swapVerdicts(owner.Members[0].Type.(*btf.Enum)) },
	} {
		t.Run(name, func(t *testing.T) {
			pins := pinsDir(t)
			must(t, os.Mkdir(pins, 0o700))
			spec, err := bpf.LoadVmgate()
			must(t, err)
			owners := spec.Maps["owners"]
			owners.Value = btf.Copy(owners.Value)
			change(owners.Value.(*btf.Struct))
			owners.Pinning = ebpf.PinByName
			m, err := ebpf.NewMapWithOptions(owners, ebpf.MapOptions{PinPath: pins})
			must(t, err)
			must(t, m.Close())
			_, err = Open(Options{Pins: pins})
			if !errors.Is(err, errLayout) || !strings.Contains(err.Error(), pins+"/owners") {
				t.Errorf("error %v", err)
			}
		})
	}
}

func swapVerdicts(e *btf.Enum) {
	e.Values[1].Value, e.Values[3].Value = e.Values[3].Value, e.Values[1].Value
}
