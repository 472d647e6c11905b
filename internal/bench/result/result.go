// Package result is build/bench.json: what the benchmarks found, under which
// conditions, and what they are to find.
package result

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
)

// File is the content of bench.json. Runs of single benchmarks are merged into it.
type File struct {
	// Conditions are those of a benchmark, by its name.
	Conditions map[string]map[string]any `json:"conditions"`
	// Results are figures by key. Those of Keys have targets; others explain them.
	Results map[string]Figure `json:"results"`
	// Series are curves, by the name of their plot.
	Series map[string]Series `json:"series,omitempty"`
}

// Figure is a quantity over several runs.
type Figure struct {
	Median float64 `json:"median"`
	Min    float64 `json:"min"`
	Max    float64 `json:"max"`
	Runs   int     `json:"runs"`
	Unit   string  `json:"unit"`
}

// Of makes a figure of runs, of which there is one at least.
func Of(unit string, runs []float64) Figure {
	runs = slices.Sorted(slices.Values(runs))
	median := runs[len(runs)/2]
	if len(runs)%2 == 0 {
		median = (median + runs[len(runs)/2-1]) / 2
	}
	return Figure{Median: median, Min: runs[0], Max: runs[len(runs)-1], Runs: len(runs), Unit: unit}
}

// Ratios makes a figure of a's runs over those of b that they are paired with.
func Ratios(a, b []float64) Figure {
	var ratios []float64
	for i := range a {
		ratios = append(ratios, a[i]/b[i])
	}
	return Of("ratio", ratios)
}

// Series is what a plot shows: lines over a common x axis.
type Series struct {
	Title string `json:"title"`
	X     string `json:"x"` // what the axes say
	Y     string `json:"y"`
	LogX  bool   `json:"log_x,omitempty"`
	Lines []Line `json:"lines"`
}

// Line is one line of a plot.
type Line struct {
	Name   string  `json:"name"`
	Points []Point `json:"points"`
}

// Point is the median of several runs at x.
type Point struct {
	X float64 `json:"x"`
	Figure
}

// Load reads a file; one that is not there is empty.
func Load(path string) (*File, error) {
	f := &File{}
	text, err := os.ReadFile(path)
	if err == nil {
		err = json.Unmarshal(text, f)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("cannot read %s: %w; remove it", path, err)
	}
	return f, nil
}

// Merge adds what a benchmark has found to a file.
func Merge(path string, found File) error {
	all, err := Load(path)
	if err != nil {
		return err
	}
	all.Results = merged(all.Results, found.Results)
	all.Series = merged(all.Series, found.Series)
	all.Conditions = merged(all.Conditions, found.Conditions)
	text, err := json.MarshalIndent(all, "", "  ")
	if err != nil {
		return fmt.Errorf("cannot write %s: %w", path, err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return os.WriteFile(path, append(text, '\n'), 0o644)
}

func merged[V any](into, from map[string]V) map[string]V {
	if into == nil {
		into = map[string]V{}
	}
	maps.Copy(into, from)
	return into
}
