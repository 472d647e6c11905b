package bpf_test

import (
	"strings"
	"testing"

	"github.com/cilium/ebpf/btf"

	"github.com/vmgate/vmgate/bpf"
	"github.com/vmgate/vmgate/pkg/verdict"
)

// enumValues returns the values of a C enum by their lower-case names without prefix.
func enumValues(t *testing.T, name, prefix string) map[string]uint64 {
	t.Helper()
	spec, err := bpf.LoadVmgate()
	if err != nil {
		t.Fatal(err)
	}
	var enum *btf.Enum
	if err := spec.Types.TypeByName(name, &enum); err != nil {
		t.Fatal(err)
	}
	values := map[string]uint64{}
	for _, v := range enum.Values {
		label := strings.TrimPrefix(v.Name, prefix)
		values[strings.ReplaceAll(strings.ToLower(label), "_", "-")] = v.Value
	}
	return values
}

func TestEnums_GoNumbersAndLabelsAreThoseOfC(t *testing.T) {
	for _, v := range []verdict.Verdict{verdict.Undecided, verdict.Forward, verdict.Check, verdict.Drop} {
		if got := enumValues(t, "verdict", "VERDICT_")[v.String()]; got != uint64(v) {
			t.Errorf("verdict %s is %d in C, %d in Go", v, got, v)
		}
	}
	if n := len(enumValues(t, "verdict", "VERDICT_")); n != 4 {
		t.Errorf("C has %d verdicts, Go 4", n)
	}
	causes := enumValues(t, "cause", "CAUSE_")
	for c := verdict.CauseNone; c <= verdict.CauseSpoof; c++ {
		if got, ok := causes[c.String()]; !ok || got != uint64(c) {
			t.Errorf("cause %s is %d (%t) in C, %d in Go", c, got, ok, c)
		}
	}
	if len(causes) != int(verdict.CauseSpoof)+1 {
		t.Errorf("C has %d causes, Go %d", len(causes), verdict.CauseSpoof+1)
	}
}
