package bpf_test

import (
	"os"
	"testing"

	"github.com/cilium/ebpf"

	"github.com/vmgate/vmgate/bpf"
)

func TestProf(t *testing.T) {
	spec, err := bpf.LoadVmgate()
	if err != nil {
		t.Fatal(err)
	}
	delete(spec.Programs, "vmgate_ids")
	delete(spec.Programs, "vmgate_egress")
	c, err := ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{Programs: ebpf.ProgramOptions{LogLevel: ebpf.LogLevelInstruction, LogSizeStart: 1 << 29}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	os.WriteFile("/tmp/bpfv/log", []byte(c.Programs["vmgate_ingress"].VerifierLog), 0o644)
}
