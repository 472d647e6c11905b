package vmi

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
)

// linuxLayout is where everything lies in this kernel's structs that we read.
// The tags name the members for BTF, alternatives of other kernel versions
// after "|"; "?" marks those that not every kernel has (their size is 0 then).
type linuxLayout struct {
	processLayout
	fileLayout
	socketLayout
	kernelLayout
}

// layoutFields are the members of linuxLayout's parts.
func layoutFields() []reflect.StructField {
	return slices.DeleteFunc(reflect.VisibleFields(reflect.TypeFor[linuxLayout]()), func(f reflect.StructField) bool { return f.Anonymous })
}

// layoutStructs are the structs that linuxLayout's tags name.
func layoutStructs() map[string]bool {
	want := make(map[string]bool)
	for _, f := range layoutFields() {
		for spec := range strings.SplitSeq(f.Tag.Get("btf"), "|") {
			name, _, _ := strings.Cut(strings.TrimPrefix(spec, "sizeof "), ".")
			want[name] = true
		}
	}
	for _, v := range slices.Concat(vetSizes, vetProtocols) {
		want[v.name] = true
	}
	return want
}

// newLinuxLayout looks all members up.
func newLinuxLayout(b *btf) (*linuxLayout, error) {
	l := new(linuxLayout)
	v := reflect.ValueOf(l).Elem()
	for _, member := range layoutFields() {
		specs, optional := strings.CutSuffix(member.Tag.Get("btf"), "?")
		f, ok := lookUpMember(b, specs)
		if !ok && !optional {
			return nil, fmt.Errorf("%w: no member %s", errBTF, specs)
		}
		v.FieldByIndex(member.Index).Set(reflect.ValueOf(f))
	}
	return l, nil
}

func lookUpMember(b *btf, specs string) (field, bool) {
	for spec := range strings.SplitSeq(specs, "|") {
		if name, ok := strings.CutPrefix(spec, "sizeof "); ok {
			if size, ok := b.structSize(name); ok {
				return field{size: size}, true
			}
		} else if f, ok := b.member(strings.Split(spec, ".")...); ok {
			return f, true
		}
	}
	return field{}, false
}
