package demo

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"text/tabwriter"
	"time"
)

// StepResult is one line of the closing table.
type StepResult struct {
	Step     string  `json:"step"`
	Expected string  `json:"expected"`
	Seen     string  `json:"seen"`
	MS       float64 `json:"ms"`
	OK       bool    `json:"ok"`
}

// Report is what build/demo.json holds.
type Report struct {
	OK    bool         `json:"ok"`
	Error string       `json:"error,omitempty"` // what kept the demonstration from its end
	Steps []StepResult `json:"steps"`
}

func (r *Report) add(s StepResult) { r.Steps = append(r.Steps, s) }

// close decides whether all went as expected.
func (r *Report) close(err error, wanted int) {
	r.OK = err == nil && len(r.Steps) == wanted
	for _, s := range r.Steps {
		r.OK = r.OK && s.OK
	}
	if err != nil {
		r.Error = err.Error()
	}
}

// table prints the steps for people.
func (r *Report) table(w io.Writer) {
	fmt.Fprintln(w)
	// text/tabwriter: four plain columns need no more than the standard library.
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t, "\tSTEP\tEXPECTED\tSEEN\tMILLISECONDS")
	for _, s := range r.Steps {
		mark := "ok"
		if !s.OK {
			mark = "NO"
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%.0f\n", mark, s.Step, s.Expected, s.Seen, s.MS)
	}
	t.Flush()
}

// save writes the report for programs.
func (r *Report) save(path string) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("cannot save the report: %w", err)
	}
	text, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return fmt.Errorf("cannot save the report: %w", err)
	}
	if err := os.WriteFile(path, append(text, '\n'), 0o644); err != nil {
		return fmt.Errorf("cannot save the report: %w", err)
	}
	return nil
}

// screen prints what happens, one line each with the time since the start.
type screen struct {
	out   io.Writer
	begin time.Time
}

func (s *screen) line(format string, args ...any) {
	fmt.Fprintf(s.out, "%8.3f  %s\n", time.Since(s.begin).Seconds(), fmt.Sprintf(format, args...))
}
