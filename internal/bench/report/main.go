// Command report writes what the benchmarks found into docs/performance.md, between
// its marks, and their plots beside it. See `make bench-docs`.
package main

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/vmgate/vmgate/internal/bench/result"
)

func main() {
	if err := run("build/bench.json", "docs/performance.md"); err != nil {
		fmt.Fprintln(os.Stderr, "report:", err)
		os.Exit(1)
	}
}

func run(from, page string) error {
	found, err := result.Load(from)
	if err != nil {
		return err
	}
	text, err := os.ReadFile(page)
	if err != nil {
		return err
	}
	var plots strings.Builder
	for _, name := range slices.Sorted(maps.Keys(found.Series)) {
		series := found.Series[name]
		if err := plot(series, filepath.Join(filepath.Dir(page), name+".svg")); err != nil {
			return fmt.Errorf("cannot draw %s: %w", name, err)
		}
		fmt.Fprintf(&plots, "![%s](%s.svg)\n\n", series.Title, name)
	}
	out := string(text)
	for mark, content := range map[string]string{
		"table": table(found), "plots": strings.TrimSpace(plots.String()) + "\n", "others": others(found), "conditions": conditions(found),
	} {
		if out, err = replace(out, mark, content); err != nil {
			return fmt.Errorf("%s: %w", page, err)
		}
	}
	return os.WriteFile(page, []byte(out), 0o644)
}

// replace puts content between a mark's two lines.
func replace(text, mark, content string) (string, error) {
	begin, end := "<!-- "+mark+" -->\n", "<!-- end of "+mark+" -->"
	before, rest, ok := strings.Cut(text, begin)
	if !ok {
		return "", fmt.Errorf("no line %q", strings.TrimSpace(begin))
	}
	_, after, ok := strings.Cut(rest, end)
	if !ok {
		return "", fmt.Errorf("no line %q", end)
	}
	return before + begin + "\n" + content + "\n" + end + after, nil
}
