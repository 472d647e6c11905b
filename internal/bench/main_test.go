// Package bench_test measures the gateway as a whole, with the real programs, the
// real daemon and the real engine between network namespaces. `make bench` runs it
// and `make bench ONLY=KEY,KEY` a part of it; what it finds goes into
// build/bench.json, and from there into docs/performance.md by `make bench-docs`.
//
// To add a key: give it a line in result.Keys, with its target; write a Benchmark
// that begins with want(b, "key", …), which skips it where none of its keys is asked
// for; take the figures, peers in turn by alternate; hand them to record. Say in the
// conditions whatever another would need to find the same. A benchmark that does not
// get what it counts on (frames lost where none may be) fails: a wrong figure is
// worse than none. Whatever is made goes when the benchmark ends.
package bench_test

import (
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vmgate/vmgate/internal/bench/result"
)

var only = flag.String("only", "", "keys to measure, separated by commas; empty: all")

// pairs is how often each of several peers is measured, in turn.
const pairs = 9

// results is where they go.
const results = "../../build/bench.json"

// want skips the benchmark unless one of its keys, all of which it names, is to be
// measured.
func want(b *testing.B, keys ...string) {
	b.Helper()
	if os.Geteuid() != 0 {
		b.Skip("needs root: network namespaces and BPF programs")
	}
	asked := strings.Split(*only, ",")
	if *only != "" && !slices.ContainsFunc(keys, func(key string) bool { return slices.Contains(asked, key) }) {
		b.Skip("not asked for")
	}
	progress(b, "%s", strings.Join(keys, ", "))
}

// progress tells what goes on: a benchmark's own output comes at its end.
func progress(b *testing.B, format string, args ...any) {
	b.Helper()
	fmt.Fprintf(os.Stderr, "%s %s: %s\n", time.Now().Format(time.TimeOnly), b.Name(), fmt.Sprintf(format, args...))
}

// peer is one of several that are compared.
type peer struct {
	name string
	run  func() float64 // one measurement
}

// alternate measures the peers in turn, rounds times; who begins changes, so that a
// machine that warms up or slows down favours none. The n-th values belong together.
func alternate(b *testing.B, rounds int, peers []peer) map[string][]float64 {
	b.Helper()
	found := map[string][]float64{}
	for round := range rounds {
		for i := range peers {
			p := peers[(round+i)%len(peers)]
			value := p.run()
			found[p.name] = append(found[p.name], value)
			progress(b, "%d/%d %s %.4g", round+1, rounds, p.name, value)
		}
	}
	return found
}

// record adds figures to build/bench.json and to the benchmark's line. Conditions are
// those taken before it began.
func record(b *testing.B, found map[string]result.Figure, conditions map[string]any, series map[string]result.Series) {
	b.Helper()
	name := strings.TrimPrefix(b.Name(), "Benchmark")
	must(b, result.Merge(results, result.File{
		Results: found, Series: series, Conditions: map[string]map[string]any{name: conditions},
	}))
	b.ReportMetric(0, "ns/op") // of a whole benchmark it says nothing
	for key, figure := range found {
		if k, ok := result.Find(key); ok {
			b.ReportMetric(figure.Median, key)
			progress(b, "%s = %.4g (%.4g to %.4g, %d runs), wanted %s", key, figure.Median, figure.Min, figure.Max, figure.Runs, k.Wanted())
		}
	}
}

func must(b *testing.B, err error) {
	b.Helper()
	if err != nil {
		b.Fatal(err)
	}
}
