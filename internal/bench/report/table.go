package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/vmgate/vmgate/internal/bench/result"
)

// table is that of the figures with targets, in the order of result.Keys.
func table(found *result.File) string {
	var text strings.Builder
	text.WriteString("| key | what | target | median | least to greatest | runs | |\n|---|---|---|---|---|---|---|\n")
	for _, k := range result.Keys {
		f, ok := found.Results[k.Name]
		if !ok {
			fmt.Fprintf(&text, "| `%s` | %s | %s | not measured | | | |\n", k.Name, k.What, k.Wanted())
			continue
		}
		met := "met"
		if !k.Met(f.Median) {
			met = "**missed**"
		}
		fmt.Fprintf(&text, "| `%s` | %s | %s | %s | %s to %s | %d | %s |\n",
			k.Name, k.What, k.Wanted(), number(f.Median), number(f.Min), number(f.Max), f.Runs, met)
	}
	return text.String()
}

// others are the figures that explain those with targets.
func others(found *result.File) string {
	var text strings.Builder
	text.WriteString("| figure | median | least to greatest | unit |\n|---|---|---|---|\n")
	for _, name := range slices.Sorted(maps.Keys(found.Results)) {
		if _, ok := result.Find(name); ok {
			continue
		}
		f := found.Results[name]
		fmt.Fprintf(&text, "| `%s` | %s | %s to %s | %s |\n", name, number(f.Median), number(f.Min), number(f.Max), f.Unit)
	}
	return text.String()
}

// conditions are those of each benchmark, as it wrote them down.
func conditions(found *result.File) string {
	var text strings.Builder
	for _, name := range slices.Sorted(maps.Keys(found.Conditions)) {
		fmt.Fprintf(&text, "* **%s**:", name)
		of := found.Conditions[name]
		for i, key := range slices.Sorted(maps.Keys(of)) {
			value, ok := of[key].(string)
			if !ok {
				b, _ := json.Marshal(of[key]) // it came out of JSON
				value = string(b)
			}
			if i > 0 {
				text.WriteByte(';')
			}
			fmt.Fprintf(&text, " %s %s", strings.ReplaceAll(key, "_", " "), value)
		}
		text.WriteString(".\n")
	}
	return text.String()
}

// number writes a figure with three digits that count, and thousands apart.
func number(v float64) string {
	if v < 1000 && v > -1000 {
		return strconv.FormatFloat(v, 'g', 3, 64)
	}
	digits := strconv.FormatFloat(v, 'f', 0, 64)
	for at := len(digits) - 3; at > 0 && digits[at-1] != '-'; at -= 3 {
		digits = digits[:at] + "," + digits[at:]
	}
	return digits
}
