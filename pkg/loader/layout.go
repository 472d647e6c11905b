package loader

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
)

// errLayout says that two types of the same name and size mean different things.
var errLayout = errors.New("different layout")

// checkLayout compares the type of a pinned map's values with the one this
// build has: after an upgrade a map may have values of the same size that mean
// something else. A map that carries no types passes.
func checkLayout(m *ebpf.Map, spec *ebpf.MapSpec) error {
	want, ok := spec.Value.(*btf.Struct)
	if !ok {
		return nil
	}
	handle, err := m.Handle()
	if errors.Is(err, ebpf.ErrNotSupported) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("cannot read its types: %w", err)
	}
	defer handle.Close()
	types, err := handle.Spec(nil)
	if err != nil {
		return fmt.Errorf("cannot read its types: %w", err)
	}
	var have *btf.Struct
	if err := types.TypeByName(want.Name, &have); err != nil {
		return fmt.Errorf("%w: its values are no struct %s", errLayout, want.Name)
	}
	return fits(have, want)
}

// fits reports whether what was written as type have reads right as want: the
// same members at the same places, and every name of an enum with its number.
func fits(have, want btf.Type) error {
	have, want = btf.UnderlyingType(have), btf.UnderlyingType(want)
	switch want := want.(type) {
	case *btf.Struct:
		have, ok := have.(*btf.Struct)
		if !ok || have.Size != want.Size || len(have.Members) != len(want.Members) {
			return fmt.Errorf("%w: struct %s", errLayout, want.Name)
		}
		for i, w := range want.Members {
			h := have.Members[i]
			if h.Name != w.Name || h.Offset != w.Offset {
				return fmt.Errorf("%w: struct %s has %s where %s is now", errLayout, want.Name, h.Name, w.Name)
			}
			if err := fits(h.Type, w.Type); err != nil {
				return fmt.Errorf("%s: %w", w.Name, err)
			}
		}
	case *btf.Array:
		have, ok := have.(*btf.Array)
		if !ok || have.Nelems != want.Nelems {
			return fmt.Errorf("%w: array", errLayout)
		}
		return fits(have.Type, want.Type)
	case *btf.Int:
		if have, ok := have.(*btf.Int); !ok || have.Size != want.Size {
			return fmt.Errorf("%w: integer", errLayout)
		}
	case *btf.Enum:
		return enumFits(have, want)
	}
	return nil
}

func enumFits(have btf.Type, want *btf.Enum) error {
	old, ok := have.(*btf.Enum)
	if !ok || old.Size != want.Size {
		return fmt.Errorf("%w: enum %s", errLayout, want.Name)
	}
	numbers := map[string]uint64{}
	for _, v := range want.Values {
		numbers[v.Name] = v.Value
	}
	for _, v := range old.Values {
		if now, ok := numbers[v.Name]; !ok || now != v.Value {
			return fmt.Errorf("%w: %s was %d in enum %s", errLayout, v.Name, v.Value, want.Name)
		}
	}
	return nil
}
