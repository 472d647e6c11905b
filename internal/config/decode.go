package config

import (
	"fmt"
	"reflect"
	"strings"

	"github.com/goccy/go-yaml/ast"
)

// maxNodes bounds the nodes that are decoded, those reached over aliases counted
// each time: aliases of aliases grow exponentially.
const maxNodes = 200_000

// decoder fills a Config from the parsed text. The parser is the library's; this
// part is our own because the library's decoder stops at the first error, keeps
// no positions, and reads scalars as numbers first, which turns VLAN 10.20 into
// 10.2.
type decoder struct {
	src     *source
	anchors map[string]ast.Node
	budget  int
}

// decode fills into from the node, and notes the node's place under the path.
func (d *decoder) decode(path string, node ast.Node, into reflect.Value) {
	if node == nil {
		return
	}
	d.src.places[path] = placeOfNode(node)
	node, ok := d.resolve(path, node)
	if !ok {
		return
	}
	if node.Type() == ast.NullType {
		d.null(path, into)
		return
	}
	if into.Kind() == reflect.Pointer {
		if text, scalar := scalarText(node); scalar && text == "none" {
			return
		}
		into.Set(reflect.New(into.Type().Elem()))
		into = into.Elem()
	}
	switch {
	case isScalar(into):
		d.scalar(path, node, into)
	case into.Kind() == reflect.Slice:
		d.sequence(path, node, into)
	default:
		d.mapping(path, node, into)
	}
}

// null accepts "nothing" where it plainly means an empty list or section. It is
// refused elsewhere: a selector's field without its value would match everything.
func (d *decoder) null(path string, into reflect.Value) {
	topLevel := !strings.ContainsAny(path, ".[")
	entries := into.Kind() == reflect.Slice && into.Type().Elem().Kind() == reflect.Struct && !isScalar(reflect.New(into.Type().Elem()).Elem())
	if !topLevel && !entries {
		d.src.report(path, "%s has no value: write one, or leave the line out", path)
	}
}

// resolve follows anchors and aliases to the node that counts.
func (d *decoder) resolve(path string, node ast.Node) (ast.Node, bool) {
	for {
		if d.budget--; d.budget < 0 {
			if d.budget == -1 {
				d.src.report(path, "the file has more than %d values, those repeated by aliases included", maxNodes)
			}
			return nil, false
		}
		switch n := node.(type) {
		case *ast.AnchorNode:
			// A value that contains its own alias would go on until the budget ends.
			d.anchors[n.Name.GetToken().Value] = n.Value
			node = n.Value
		case *ast.AliasNode:
			name := n.Value.GetToken().Value
			target, ok := d.anchors[name]
			if !ok {
				d.src.report(path, "unknown alias *%s: no value before it has the anchor &%s", name, name)
				return nil, false
			}
			node = target
		case *ast.TagNode:
			d.src.report(path, "%s: tags (%s) are not supported: write the value alone", path, n.Start.Value)
			return nil, false
		case nil:
			return nil, false
		default:
			return node, true
		}
	}
}

func (d *decoder) mapping(path string, node ast.Node, into reflect.Value) {
	m, ok := node.(ast.MapNode)
	if !ok || into.Kind() != reflect.Struct {
		d.src.report(path, "%s must be keys and values, not %s", nameOf(path), describe(node))
		return
	}
	if line := into.FieldByName("Line"); line.IsValid() && line.CanSet() {
		line.SetInt(int64(placeOfNode(node).line))
	}
	fields := fieldsOf(into.Type())
	seen := map[string]place{}
	for entries := m.MapRange(); entries.Next(); {
		key, value := entries.Key(), entries.Value()
		at := placeOf(key.GetToken())
		name, isName := scalarText(key)
		field, known := fields[name]
		first, twice := seen[name]
		switch {
		case key.IsMergeKey():
			d.src.reportAt(at, "merge keys (<<) are not supported: write the keys out")
		case !isName || !known:
			d.src.reportAt(at, "unknown key %q in %s: known are %s", name, nameOf(path), strings.Join(keysOf(into.Type()), ", "))
		case twice:
			d.src.reportAt(at, "key %q given twice in %s, first in line %d: keep one", name, nameOf(path), first.line)
		default:
			seen[name] = at
			d.decode(join(path, name), value, into.Field(field))
		}
	}
}

func (d *decoder) sequence(path string, node ast.Node, into reflect.Value) {
	seq, ok := node.(*ast.SequenceNode)
	if !ok {
		d.src.report(path, "%s must be a list, not %s: write [ ] around it, or a line with - for each", path, describe(node))
		return
	}
	list := reflect.MakeSlice(into.Type(), len(seq.Values), len(seq.Values))
	for i, value := range seq.Values {
		entry := fmt.Sprintf("%s[%d]", path, i)
		if value.Type() == ast.NullType {
			d.src.places[entry] = placeOfNode(value)
			d.src.report(entry, "%s has an empty entry: fill it in, or remove the -", path)
			continue
		}
		d.decode(entry, value, list.Index(i))
	}
	into.Set(list)
}

func describe(node ast.Node) string {
	switch node.(type) {
	case *ast.SequenceNode:
		return "a list"
	case ast.MapNode:
		return "keys and values"
	default:
		return "a single value"
	}
}

// placeOfNode is where a node begins; a mapping begins at its first key, where
// the library says its colon.
func placeOfNode(node ast.Node) place {
	switch n := node.(type) {
	case *ast.MappingNode:
		if !n.IsFlowStyle && len(n.Values) > 0 {
			return placeOf(n.Values[0].Key.GetToken())
		}
	case *ast.MappingValueNode:
		return placeOf(n.Key.GetToken())
	}
	return placeOf(node.GetToken())
}

// fieldsOf maps the keys of a struct to its fields.
func fieldsOf(t reflect.Type) map[string]int {
	fields := map[string]int{}
	for i := range t.NumField() {
		if key := t.Field(i).Tag.Get("yaml"); key != "" && key != "-" {
			fields[key] = i
		}
	}
	return fields
}

// keysOf lists the keys of a struct in their order.
func keysOf(t reflect.Type) (keys []string) {
	for i := range t.NumField() {
		if key := t.Field(i).Tag.Get("yaml"); key != "" && key != "-" {
			keys = append(keys, key)
		}
	}
	return keys
}

func join(path, key string) string {
	if path == "" {
		return key
	}
	return path + "." + key
}

func nameOf(path string) string {
	if path == "" {
		return "the file"
	}
	return path
}
