package bpf_test

import (
	"errors"
	"testing"

	"github.com/cilium/ebpf"

	"github.com/vmgate/vmgate/bpf"
)

func TestLoad(t *testing.T) {
	spec, err := bpf.LoadVmgate()
	if err != nil {
		t.Fatal(err)
	}
	for n, p := range spec.Programs {
		t.Log(n, len(p.Instructions))
	}
	c, err := ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{Programs: ebpf.ProgramOptions{LogLevel: ebpf.LogLevelStats}})
	var ve *ebpf.VerifierError
	if errors.As(err, &ve) {
		n := len(ve.Log)
		for _, l := range ve.Log[max(0, n-60):] {
			t.Log(l)
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	for n, p := range c.Programs {
		i, _ := p.Info()
		v, ok := i.VerifiedInstructions()
		t.Log(n, v, ok, p.VerifierLog)
	}
}
