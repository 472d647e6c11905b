package main

import (
	"strings"
	"testing"
)

func TestSummarize(t *testing.T) {
	lines := func(events ...string) string { return strings.Join(events, "\n") }
	for _, c := range []struct {
		name   string
		in     string
		status int
		want   []string
		no     []string
	}{
		{
			"a passed test is silent",
			lines(`{"Action":"run","Package":"p","Test":"TestA"}`,
				`{"Action":"output","Package":"p","Test":"TestA","Output":"chatter\n"}`,
				`{"Action":"pass","Package":"p","Test":"TestA"}`,
				`{"Action":"output","Package":"p","Output":"PASS\n"}`,
				`{"Action":"output","Package":"p","Output":"ok  \tp\t0.1s\n"}`,
				`{"Action":"pass","Package":"p"}`),
			0,
			[]string{"ok  \tp\t0.1s\n", "PASS: 1 packages, 1 tests passed, 0 failed, 0 skipped\n"},
			[]string{"chatter", "PASS\n"},
		},
		{
			"a failed test shows its output",
			lines(`{"Action":"run","Package":"p","Test":"TestA"}`,
				`{"Action":"output","Package":"p","Test":"TestA","Output":"got 1\n"}`,
				`{"Action":"fail","Package":"p","Test":"TestA"}`,
				`{"Action":"fail","Package":"p"}`),
			1,
			[]string{"got 1\n", "FAILED: p TestA\n", "FAIL: 1 packages, 0 tests passed, 1 failed, 0 skipped\n"},
			nil,
		},
		{
			"a skip tells why",
			lines(`{"Action":"run","Package":"p","Test":"TestA"}`,
				`{"Action":"output","Package":"p","Test":"TestA","Output":"    a_test.go:12: no snort\n"}`,
				`{"Action":"skip","Package":"p","Test":"TestA"}`,
				`{"Action":"pass","Package":"p"}`),
			0,
			[]string{"skipped: p TestA: no snort\n", "0 tests passed, 0 failed, 1 skipped"},
			nil,
		},
		{
			"a group does not count",
			lines(`{"Action":"run","Package":"p","Test":"TestA"}`,
				`{"Action":"run","Package":"p","Test":"TestA/x"}`,
				`{"Action":"pass","Package":"p","Test":"TestA/x"}`,
				`{"Action":"pass","Package":"p","Test":"TestA"}`,
				`{"Action":"pass","Package":"p"}`),
			0, []string{"1 tests passed"}, nil,
		},
		{
			"a package that does not build fails",
			lines(`{"ImportPath":"p","Action":"build-output","Output":"x.go:1: undefined\n"}`,
				`{"Action":"fail","Package":"p"}`),
			1, []string{"x.go:1: undefined\n", "FAILED: p (the package)"}, nil,
		},
		{
			"a test that never ended is shown",
			lines(`{"Action":"run","Package":"p","Test":"TestA"}`,
				`{"Action":"output","Package":"p","Test":"TestA","Output":"panic: timed out\n"}`,
				`{"Action":"fail","Package":"p"}`),
			1, []string{"panic: timed out\n", "FAILED: p (the package)"}, nil,
		},
		{"nothing at all is a failure", "no such package", 1, []string{"no such package\n", "FAIL: 0 packages"}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			var out strings.Builder
			if status := summarize(strings.NewReader(c.in), &out); status != c.status {
				t.Errorf("status %d, want %d", status, c.status)
			}
			for _, part := range c.want {
				if !strings.Contains(out.String(), part) {
					t.Errorf("%q is not in:\n%s", part, out.String())
				}
			}
			for _, part := range c.no {
				for line := range strings.Lines(out.String()) {
					if line == part || strings.Contains(line, "chatter") {
						t.Errorf("%q is in:\n%s", part, out.String())
					}
				}
			}
		})
	}
}
