// Package bench_test measures the gateway as a whole, with the real daemon and the
// real engine between network namespaces. `make bench` runs it; the figures go into
// build/bench.json.
package bench_test

import (
	"encoding/json"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// results is build/bench.json: figures by name, and the conditions that they were
// measured under by the name of the benchmark. Runs of others are kept.
type results struct {
	Results    map[string]figure         `json:"results"`
	Conditions map[string]map[string]any `json:"conditions"`
}

// figure is a quantity over several runs.
type figure struct {
	Median float64 `json:"median"`
	Min    float64 `json:"min"`
	Max    float64 `json:"max"`
	Runs   int     `json:"runs"`
	Unit   string  `json:"unit"`
}

func figureOf(unit string, runs []float64) figure {
	runs = slices.Sorted(slices.Values(runs))
	return figure{Median: runs[len(runs)/2], Min: runs[0], Max: runs[len(runs)-1], Runs: len(runs), Unit: unit}
}

// record merges what a benchmark has found into build/bench.json.
func record(b *testing.B, name string, found map[string]figure, conditions map[string]any) {
	b.Helper()
	const path = "../../build/bench.json"
	all := results{Results: map[string]figure{}, Conditions: map[string]map[string]any{}}
	text, err := os.ReadFile(path)
	if err == nil {
		err = json.Unmarshal(text, &all)
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		b.Fatalf("cannot add to %s: %v; remove it", path, err)
	}
	maps.Copy(all.Results, found)
	all.Conditions[name] = conditions
	text, err = json.MarshalIndent(all, "", "  ")
	must(b, err)
	must(b, os.MkdirAll(filepath.Dir(path), 0o755))
	must(b, os.WriteFile(path, append(text, '\n'), 0o644))
}

func must(b *testing.B, err error) {
	b.Helper()
	if err != nil {
		b.Fatal(err)
	}
}
