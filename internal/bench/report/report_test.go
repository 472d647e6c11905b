package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vmgate/vmgate/internal/bench/result"
)

// TestRun: figures, plots and marks of a page, of which the rest stays as it is.
func TestRun(t *testing.T) {
	dir := t.TempDir()
	from, page := filepath.Join(dir, "bench.json"), filepath.Join(dir, "page.md")
	for _, found := range []result.File{
		{
			Results: map[string]result.Figure{
				"forward_vs_bridge": result.Ratios([]float64{2, 40, 3}, []float64{1, 10, 1}), "drop_vs_bare": result.Of("ratio", []float64{.5}),
				"packets": result.Of("packets/s", []float64{1234567, 1234565}),
			},
			Conditions: map[string]map[string]any{"Forward": {"frame_bytes": 64, "kernel": "6.18"}},
		},
		{Series: map[string]result.Series{"rates": {Title: "Rates", LogX: true, Lines: []result.Line{{Name: "one", Points: []result.Point{
			{X: 1, Figure: result.Of("x", []float64{1, 2, 3})}, {X: 1000, Figure: result.Of("x", []float64{4})},
		}}}}}},
	} {
		if err := result.Merge(from, found); err != nil {
			t.Fatal(err)
		}
	}
	if err := run(from, page); err == nil {
		t.Error("a page that is not there was written")
	}
	var text strings.Builder
	text.WriteString("before\n")
	for _, mark := range []string{"table", "plots", "others", "conditions"} {
		text.WriteString("<!-- " + mark + " -->\nof an earlier run\n<!-- end of " + mark + " -->\nkept\n")
	}
	if err := os.WriteFile(page, []byte(text.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := run(from, page); err != nil {
		t.Fatal(err)
	}
	written, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"before\n<!-- table -->", "| ≥ 3 | 3 | 2 to 4 | 3 | met |", "| ≥ 0.7 | 0.5 | 0.5 to 0.5 | 1 | **missed** |", "not measured",
		"| `packets` | 1,234,566 | 1,234,565 to 1,234,567 | packets/s |", "![Rates](rates.svg)", "* **Forward**: frame bytes 64; kernel 6.18.\n",
	} {
		if !strings.Contains(string(written), want) {
			t.Errorf("no %q in\n%s", want, written)
		}
	}
	if strings.Contains(string(written), "earlier") || strings.Count(string(written), "kept") != 4 {
		t.Errorf("the rest of the page:\n%s", written)
	}
	if svg, err := os.ReadFile(filepath.Join(dir, "rates.svg")); err != nil || !strings.Contains(string(svg), "Rates") {
		t.Errorf("the plot: %v", err)
	}
}
