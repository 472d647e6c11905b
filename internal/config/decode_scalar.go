package config

import (
	"encoding"
	"fmt"
	"net/netip"
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/goccy/go-yaml/ast"
)

func (d *decoder) scalar(path string, node ast.Node, into reflect.Value) {
	text, ok := scalarText(node)
	if !ok {
		d.src.report(path, "%s must be a single value, not %s", path, describe(node))
		return
	}
	if text == "" {
		d.src.report(path, "%s is empty: write a value, or leave the line out", path)
		return
	}
	if err := setScalar(into, text); err != nil {
		d.src.report(path, "%s: %v", path, err)
	}
}

func setScalar(into reflect.Value, text string) error {
	switch v := into.Addr().Interface().(type) { // whose own errors are for programmers
	case *netip.Addr:
		if v.UnmarshalText([]byte(text)) != nil {
			return fmt.Errorf("%q is no IP address: write 192.0.2.1 or 2001:db8::1", text)
		}
		return nil
	case *netip.Prefix:
		if v.UnmarshalText([]byte(text)) != nil {
			return fmt.Errorf("%q is no prefix: write 192.0.2.0/24 or 2001:db8::/64", text)
		}
		return nil
	}
	if u, ok := into.Addr().Interface().(encoding.TextUnmarshaler); ok {
		return u.UnmarshalText([]byte(text))
	}
	if into.Type() == reflect.TypeFor[time.Duration]() {
		duration, err := time.ParseDuration(text)
		if err != nil {
			return fmt.Errorf("%q is no duration: write 200ms, 2s or 1m", text)
		}
		into.SetInt(int64(duration))
		return nil
	}
	switch into.Kind() {
	case reflect.String:
		into.SetString(text)
	case reflect.Bool:
		if text != "true" && text != "false" {
			return fmt.Errorf("%q is neither true nor false", text)
		}
		into.SetBool(text == "true")
	default:
		number, err := strconv.ParseInt(text, 10, into.Type().Bits())
		if err != nil {
			return fmt.Errorf("%q is no whole number of its range", text)
		}
		into.SetInt(number)
	}
	return nil
}

// isScalar says whether the type is written as a single value.
func isScalar(v reflect.Value) bool {
	if _, ok := v.Addr().Interface().(encoding.TextUnmarshaler); ok {
		return true
	}
	switch v.Kind() {
	case reflect.String, reflect.Bool, reflect.Int, reflect.Int64:
		return true
	default:
		return false
	}
}

// scalarText returns the text of a scalar as it is written, quotes resolved.
func scalarText(node ast.Node) (string, bool) {
	switch n := node.(type) {
	case *ast.StringNode:
		return n.Value, true
	case *ast.LiteralNode:
		return strings.TrimSuffix(n.Value.Value, "\n"), true
	case *ast.IntegerNode, *ast.FloatNode, *ast.BoolNode, *ast.InfinityNode, *ast.NanNode:
		return node.GetToken().Value, true
	default:
		return "", false
	}
}
