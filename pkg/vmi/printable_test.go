package vmi

import (
	"strconv"
	"testing"
	"unicode/utf8"
)

func TestPrintable(t *testing.T) {
	for in, want := range map[string]string{
		"nginx": "nginx", "ng\x1b[31minx": `ng\x1b[31minx`, "a\nb\tc": `a\nb\tc`, "\xff\xfe": `\xff\xfe`,
		"käse": "käse", "\u202eexe": `\u202eexe`, "\x00": `\x00`, "\u009b1m": `\u009b1m`, "": "",
	} {
		if got := printable(in); got != want {
			t.Errorf("%q is shown as %q, want %q", in, got, want)
		}
	}
}

func FuzzPrintable(f *testing.F) {
	f.Add("a\x1b]0;x\a\xff\u202e", 5)
	f.Fuzz(func(t *testing.T, s string, limit int) {
		if limit < 0 {
			return
		}
		got := printableUpTo(s, limit)
		if !utf8.ValidString(got) || len(got) > 10*limit {
			t.Fatalf("%q", got)
		}
		for _, r := range got {
			if !strconv.IsPrint(r) {
				t.Fatalf("%q has %q", got, r)
			}
		}
	})
}
