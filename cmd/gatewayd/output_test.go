package main

import (
	"strings"
	"testing"
	"unicode"
)

func TestPrintable(t *testing.T) {
	for given, want := range map[string]string{
		"curl":              "curl",
		"a\x1b[2Jb":         `a\x1b[2Jb`,
		"a\nb\tc":           `a\nb\tc`,
		"a\u009b31m":        `a\u009b31m`,
		"a\u202egpj.exe":    `a\u202egpj.exe`,
		"raw \x9b and \xff": "raw \uFFFD and \uFFFD",
		"größe 猫":           "größe 猫",
	} {
		if got := printable(given); got != want {
			t.Errorf("printable(%q) is %q, want %q", given, got, want)
		}
	}
}

// FuzzTable: whatever a guest chooses for its names, a row stays one line of
// printable characters with the columns that it has.
func FuzzTable(f *testing.F) {
	f.Add("curl", "/usr/bin/curl")
	f.Add("\x1b[31m\n", "\t\v\f\u2028")
	f.Add("\xff\xfe", "")
	f.Fuzz(func(t *testing.T, name, path string) {
		var out strings.Builder
		table := newTable(&out)
		table.row("PID", "NAME", "PATH")
		table.row(1, name, path)
		if err := table.Flush(); err != nil {
			t.Fatal(err)
		}
		if n := strings.Count(out.String(), "\n"); n != 2 {
			t.Errorf("%d lines: %q", n, out.String())
		}
		for _, r := range out.String() {
			if r != '\n' && !unicode.IsPrint(r) {
				t.Errorf("%q is printed as it is: %q", r, out.String())
			}
		}
	})
}
