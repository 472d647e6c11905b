package loader

import (
	"reflect"
	"strings"
	"testing"

	"github.com/cilium/ebpf/btf"

	"github.com/vmgate/vmgate/bpf"
)

// The generated types are what the object says, the object what types.h said
// when it was built: a change of one without the others is seen here.
func TestWire_AgreesWithTheObjectsBTF(t *testing.T) {
	spec, err := bpf.LoadVmgate()
	must(t, err)
	for name, v := range map[string]any{
		"flow_key": wireFlowKey{}, "flow": wireFlow{}, "pending": wirePending{}, "vm": wireVM{}, "mac_key": wireMACKey{},
		"mac_entry": wireMACEntry{}, "addr_key": wireAddrKey{}, "addr_entry": wireAddrEntry{}, "rule": wireRule{},
		"owner": wireOwner{}, "verdict_key": wireVerdictKey{}, "verdict_entry": wireVerdictEntry{},
		"settings": wireSettings{}, "event": wireEvent{}, "port": wirePort{}, "port_config": wirePortConfig{},
		"counter": wireCounter{},
	} {
		var c *btf.Struct
		if err := spec.Types.TypeByName(name, &c); err != nil {
			t.Errorf("struct %s: %v", name, err)
			continue
		}
		goType := reflect.TypeOf(v)
		if uint32(goType.Size()) != c.Size {
			t.Errorf("struct %s has %d bytes, in Go %d", name, c.Size, goType.Size())
		}
		fields := map[string]uintptr{}
		for i := range goType.NumField() {
			f := goType.Field(i)
			fields[strings.ToLower(f.Name)] = f.Offset
		}
		for _, m := range c.Members {
			offset, ok := fields[strings.ReplaceAll(m.Name, "_", "")]
			if !ok || uint32(offset) != m.Offset.Bytes() {
				t.Errorf("struct %s: %s is at %d, in Go at %d (there: %v)", name, m.Name, m.Offset.Bytes(), offset, ok)
			}
		}
	}
}

func TestReason_NamesAreThoseOfTheEnum(t *testing.T) {
	checkEnum(t, "reason", "REASON_", func(v uint32) string { return Reason(v).String() })
	checkEnum(t, "event_type", "EVENT_", func(v uint32) string { return EventType(v).String() })
	for _, r := range Reasons() {
		if r.Dropped() != strings.HasPrefix(r.String(), "drop-") {
			t.Errorf("%s: dropped is %v", r, r.Dropped())
		}
	}
	if len(Reasons()) < 30 || Reason(47).String() != "reason-47" || Reason(1000).String() != "reason-1000" {
		t.Errorf("%d reasons; unknown ones are %s and %s", len(Reasons()), Reason(47), Reason(1000))
	}
}

func checkEnum(t *testing.T, enum, prefix string, name func(uint32) string) {
	t.Helper()
	spec, err := bpf.LoadVmgate()
	must(t, err)
	var e *btf.Enum
	must(t, spec.Types.TypeByName(enum, &e))
	for _, v := range e.Values {
		want := strings.ToLower(strings.ReplaceAll(strings.TrimPrefix(v.Name, prefix), "_", "-"))
		if want != "max" && name(uint32(v.Value)) != want {
			t.Errorf("%s is %q, want %q", v.Name, name(uint32(v.Value)), want)
		}
	}
}

func TestSettings_NumbersAreThoseOfTheEnums(t *testing.T) {
	if ModeMonitor != Mode(bpf.VmgateModeMODE_MONITOR) || ModeClose != Mode(bpf.VmgateModeMODE_CLOSE) ||
		ModeOpen != Mode(bpf.VmgateModeMODE_OPEN) || IDSDownClosed != IDSState(bpf.VmgateIdsStateIDS_DOWN_CLOSED) ||
		IDSDownOpen != IDSState(bpf.VmgateIdsStateIDS_DOWN_OPEN) || PortIDSIn != PortKind(bpf.VmgatePortKindPORT_IDS_IN) ||
		PortIDSOut != PortKind(bpf.VmgatePortKindPORT_IDS_OUT) {
		t.Error("modes, IDS states or port kinds differ from types.h")
	}
}
