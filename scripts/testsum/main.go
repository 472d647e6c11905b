// Testsum reads `go test -json` and prints what a person needs of it: the line
// of every package as go test itself prints it, the output of every test that
// failed, the reason of every skip, and a count at the end. It fails if a test
// or a package did, and when nothing ran at all.
//
//	go test -json ./... | testsum
//
// gotestsum does the same and more, but must be downloaded before the first
// test can run.
package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
)

func main() { os.Exit(summarize(os.Stdin, os.Stdout)) }

// event is a line of test2json.
type event struct {
	Action  string
	Package string
	Test    string
	Output  string

	ImportPath string // on build output instead of Package
}

// test names one test of one package.
type test struct{ pkg, name string }

// summary counts tests without subtests: one that only groups others would
// count twice.
type summary struct {
	out      io.Writer
	output   map[test][]string // of running tests
	parents  map[test]bool
	passed   int
	failed   []string
	skipped  []string // with reasons
	packages int
}

func summarize(in io.Reader, out io.Writer) int {
	s := &summary{out: out, output: map[test][]string{}, parents: map[test]bool{}}
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		var e event
		if json.Unmarshal(lines.Bytes(), &e) != nil {
			fmt.Fprintln(out, lines.Text()) // not from test2json: go's own complaint
			continue
		}
		s.take(e)
	}
	if err := lines.Err(); err != nil {
		s.failed = append(s.failed, fmt.Sprintf("reading the results: %v", err))
	}
	return s.finish()
}

func (s *summary) take(e event) {
	id := test{e.Package, e.Test}
	switch {
	case e.Action == "build-output":
		fmt.Fprint(s.out, e.Output)
	case e.Test == "" && e.Action == "output":
		s.packageOutput(e.Output)
	case e.Test == "":
		s.packageDone(e)
	case e.Action == "run":
		if i := strings.LastIndex(e.Test, "/"); i >= 0 {
			s.parents[test{e.Package, e.Test[:i]}] = true
		}
	case e.Action == "output":
		s.output[id] = append(s.output[id], e.Output)
	case e.Action == "pass", e.Action == "fail", e.Action == "skip":
		s.testDone(id, e.Action)
	}
}

// packageOutput lets go test's own lines by, and what a test binary printed
// outside of any test; PASS and FAIL alone say nothing.
func (s *summary) packageOutput(line string) {
	if line != "PASS\n" && line != "FAIL\n" {
		fmt.Fprint(s.out, line)
	}
}

func (s *summary) packageDone(e event) {
	if e.Action == "pass" || e.Action == "fail" {
		s.packages++
	}
	if e.Action == "fail" && !slices.ContainsFunc(s.failed, func(name string) bool { return strings.HasPrefix(name, e.Package+" ") }) {
		s.failed = append(s.failed, e.Package+" (the package)")
		for id, lines := range s.output { // what a test that never ended has said
			if id.pkg == e.Package {
				fmt.Fprint(s.out, strings.Join(lines, ""))
			}
		}
	}
}

func (s *summary) testDone(id test, action string) {
	lines := s.output[id]
	delete(s.output, id)
	name := id.pkg + " " + id.name
	if action == "fail" {
		fmt.Fprint(s.out, strings.Join(lines, ""))
	}
	if s.parents[id] && action != "fail" {
		return
	}
	switch action {
	case "pass":
		s.passed++
	case "fail":
		s.failed = append(s.failed, name)
	case "skip":
		s.skipped = append(s.skipped, name+": "+reason(lines))
	}
}

// reason is what t.Skip was told: the line after its file and line number.
func reason(lines []string) string {
	for _, line := range lines {
		if _, text, ok := strings.Cut(line, ".go:"); ok {
			_, text, _ = strings.Cut(text, ": ")
			return strings.TrimSpace(text)
		}
	}
	return "no reason given"
}

func (s *summary) finish() int {
	for _, name := range s.skipped {
		fmt.Fprintln(s.out, "skipped:", name)
	}
	for _, name := range s.failed {
		fmt.Fprintln(s.out, "FAILED:", name)
	}
	verdict, status := "PASS", 0
	if len(s.failed) > 0 || s.packages == 0 {
		verdict, status = "FAIL", 1
	}
	fmt.Fprintf(s.out, "%s: %d packages, %d tests passed, %d failed, %d skipped\n",
		verdict, s.packages, s.passed, len(s.failed), len(s.skipped))
	return status
}
