package config

import (
	"encoding"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"time"
)

// Diff says what changes from old to new, a line each, for people; nothing if
// both behave alike. A nil Config stands for an empty file.
func Diff(old, new *Config) []string {
	if old == nil {
		old = defaults()
	}
	if new == nil {
		new = defaults()
	}
	var d differ
	d.compare("", reflect.ValueOf(old).Elem(), reflect.ValueOf(new).Elem())
	return d.lines
}

type differ struct{ lines []string }

func (d *differ) add(format string, args ...any) {
	d.lines = append(d.lines, fmt.Sprintf(format, args...))
}

func (d *differ) compare(path string, a, b reflect.Value) {
	switch {
	case a.Kind() == reflect.Struct && !isScalar(addressable(a)):
		for _, key := range keysOf(a.Type()) {
			i := fieldsOf(a.Type())[key]
			d.compare(join(path, key), a.Field(i), b.Field(i))
		}
	case a.Kind() == reflect.Slice && a.Type().Elem().Kind() == reflect.Struct && !isScalar(reflect.New(a.Type().Elem()).Elem()):
		d.compareEntries(path, a, b)
	case a.Kind() == reflect.Pointer && !a.IsNil() && !b.IsNil():
		d.compare(path, a.Elem(), b.Elem())
	default:
		if was, is := render(a), render(b); was != is {
			d.add("%s: %s -> %s", path, was, is)
		}
	}
}

// compareEntries compares lists of entries by their names.
func (d *differ) compareEntries(path string, a, b reflect.Value) {
	was, is := entriesOf(a), entriesOf(b)
	for _, name := range was.order {
		if _, stays := is.byName[name]; !stays {
			d.add("%s %s: removed", path, name)
		}
	}
	for _, name := range is.order {
		if before, known := was.byName[name]; known {
			d.compare(path+" "+name, before, is.byName[name])
		} else {
			d.add("%s %s: added%s", path, name, is.detail(name))
		}
	}
	// Order means something only among rules.
	if path == "policy.rules" && !slices.Equal(was.common(is), is.common(was)) {
		d.add("%s: the order is now %s", path, strings.Join(is.order, ", "))
	}
}

type entries struct {
	order  []string
	byName map[string]reflect.Value
}

func entriesOf(list reflect.Value) entries {
	e := entries{byName: map[string]reflect.Value{}}
	for i := range list.Len() {
		name := nameOfEntry(list.Index(i))
		e.order = append(e.order, name)
		e.byName[name] = list.Index(i)
	}
	return e
}

// common lists the names that other has too, in this order.
func (e entries) common(other entries) (names []string) {
	for _, name := range e.order {
		if _, ok := other.byName[name]; ok {
			names = append(names, name)
		}
	}
	return names
}

// detail is what the entry says beyond its name.
func (e entries) detail(name string) string {
	if text := render(e.byName[name]); text != name {
		return ": " + text
	}
	return ""
}

// nameOfEntry is what tells an entry from the others of its list. Entries of the
// suspect and malicious lists may share a name and have nothing but their content.
func nameOfEntry(v reflect.Value) string {
	switch e := v.Interface().(type) {
	case VM:
		return e.ID
	case Router:
		return e.ID
	case Segment:
		return e.Name
	case Rule:
		return e.Name
	case Variable:
		return e.Name
	default:
		return render(v)
	}
}

// render writes a value in one line, as it could stand in the file.
func render(v reflect.Value) string {
	if v.Kind() == reflect.Pointer {
		if v.IsNil() {
			return "none"
		}
		v = v.Elem()
	}
	v = addressable(v)
	if text, ok := v.Interface().(encoding.TextMarshaler); ok {
		b, err := text.MarshalText()
		if err != nil || len(b) == 0 {
			return "none"
		}
		return string(b)
	}
	switch v.Kind() {
	case reflect.Slice:
		parts := make([]string, v.Len())
		for i := range parts {
			parts[i] = render(v.Index(i))
		}
		return "[" + strings.Join(parts, ", ") + "]"
	case reflect.Struct:
		return renderStruct(v)
	case reflect.String:
		if v.String() == "" {
			return "none"
		}
		return v.String()
	default:
		if duration, ok := v.Interface().(time.Duration); ok {
			return duration.String()
		}
		return fmt.Sprint(v.Interface())
	}
}

func renderStruct(v reflect.Value) string {
	var parts []string
	for _, key := range keysOf(v.Type()) {
		if field := v.Field(fieldsOf(v.Type())[key]); !field.IsZero() {
			parts = append(parts, key+": "+render(field))
		}
	}
	return "{" + strings.Join(parts, ", ") + "}"
}

func addressable(v reflect.Value) reflect.Value {
	c := reflect.New(v.Type()).Elem()
	c.Set(v)
	return c
}
