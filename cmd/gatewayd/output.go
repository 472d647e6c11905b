package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"github.com/urfave/cli/v2"
)

func checkFormat(c *cli.Context) error {
	if f := c.String("output"); f != "table" && f != "json" {
		return usageErrorf("there is no output format %q: want table or json", f)
	}
	return nil
}

func wantsJSON(c *cli.Context) bool { return c.String("output") == "json" }

// show prints v as JSON, or what people fills in, as the command line asks.
func show(c *cli.Context, v any, people func(*table)) error {
	if wantsJSON(c) {
		e := json.NewEncoder(c.App.Writer)
		e.SetIndent("", "  ")
		e.SetEscapeHTML(false)
		return e.Encode(v)
	}
	t := newTable(c.App.Writer)
	people(t)
	return t.Flush()
}

// table prints aligned columns without borders: text/tabwriter and not
// tablewriter, because bare columns are what awk and cut read as well as people.
type table struct{ *tabwriter.Writer }

func newTable(w io.Writer) *table {
	return &table{tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)}
}

// row prints a line of cells; an empty cell becomes a dash, so that columns can
// be counted.
func (t *table) row(cells ...any) {
	for i, cell := range cells {
		text := printable(fmt.Sprint(cell))
		if text == "" {
			text = "-"
		}
		if i > 0 {
			fmt.Fprint(t, "\t")
		}
		fmt.Fprint(t, text)
	}
	fmt.Fprintln(t)
}

// field prints a name and its value, unless that is empty.
func (t *table) field(name, value string) {
	if value != "" {
		t.row(name, value)
	}
}

// text prints lines as they are, below one another.
func (t *table) text(lines string) { fmt.Fprintln(t, printableLines(lines)) }

// blank ends the alignment of what stands above it.
func (t *table) blank() { fmt.Fprintln(t) }

// printable escapes what a terminal could take for a command, and what would
// break a line or a column: names and paths come out of guests, which choose them.
func printable(s string) string {
	var b strings.Builder
	for _, r := range s {
		if unicode.IsPrint(r) {
			b.WriteRune(r)
		} else {
			quoted := strconv.QuoteRune(r)
			b.WriteString(quoted[1 : len(quoted)-1])
		}
	}
	return b.String()
}

// printableLines is printable for text that has lines of its own.
func printableLines(s string) string {
	lines := strings.Split(strings.ReplaceAll(s, "\t", "    "), "\n")
	for i, line := range lines {
		lines[i] = printable(line)
	}
	return strings.Join(lines, "\n")
}

// clock writes a point in time for people, in their own zone.
func clock(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.Local().Format(time.DateTime)
}

// span writes a duration for people, to three figures or so.
func span(d time.Duration) string {
	switch {
	case d < time.Second:
		return d.Round(time.Millisecond).String()
	case d < time.Minute:
		return d.Round(100 * time.Millisecond).String()
	}
	return d.Round(time.Second).String()
}

func number[T ~uint16 | ~uint32 | ~uint64 | ~int](n T) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprint(n)
}

func yes(b bool) string {
	if b {
		return "yes"
	}
	return ""
}
