package config_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vmgate/vmgate/internal/config"
)

// FuzzParse: no text panics or hangs; what is accepted converts, and every
// problem of what is refused lies in the text.
func FuzzParse(f *testing.F) {
	files, err := filepath.Glob("testdata/bad/*.yaml")
	if err != nil {
		f.Fatal(err)
	}
	for _, file := range append(files, example) {
		text, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		start := time.Now()
		c, err := config.Parse("gateway.yaml", text)
		if took := time.Since(start); took > 10*time.Second {
			t.Errorf("took %s for %d bytes", took, len(text))
		}
		if err != nil {
			checkPlaces(t, err, text)
			return
		}
		c.VerdictPolicy().Digest()
		c.Knobs()
		for _, e := range c.ListEntries() {
			if err := e.Validate(); err != nil {
				t.Error(err)
			}
		}
		if lines := config.Diff(c, c); lines != nil {
			t.Errorf("differs from itself: %q", lines)
		}
	})
}

func checkPlaces(t *testing.T, err error, text []byte) {
	t.Helper()
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		for _, err := range joined.Unwrap() {
			checkPlaces(t, err, text)
		}
		return
	}
	var p *config.Problem
	lines := strings.Count(string(text), "\n") + strings.Count(string(text), "\r") + 1
	if errors.As(err, &p) && (p.Line < 0 || p.Line > lines+1 || p.Message == "") {
		t.Errorf("%d lines, but: %v", lines, err)
	}
}

// TestParse_HostileTextsAreBounded: sizes and depths at which the YAML library
// would recurse or repeat without end.
func TestParse_HostileTextsAreBounded(t *testing.T) {
	const size = 1 << 18
	bomb := "vms: &a []\n"
	for i := range 20 {
		bomb = strings.Replace(bomb, "vms", fmt.Sprintf("k%d", i), 1) + fmt.Sprintf("vms: &%c [%s]\n", 'b'+i, strings.Repeat(fmt.Sprintf("*%c,", 'a'+i), 50))
	}
	ports := strings.TrimSuffix(strings.Repeat("1,\n", 5000), ",\n")
	texts := map[string]string{
		"too large":       strings.Repeat("#", 1<<20+1),
		"brackets":        strings.Repeat("[", size),
		"braces":          strings.Repeat("{a: ", size/4),
		"bracket lines":   strings.Repeat("[\n", size/2),
		"dashes":          strings.Repeat("- ", size/2),
		"question marks":  strings.Repeat("? ", size/2),
		"anchors":         strings.Repeat("&a ", size/3),
		"tags":            strings.Repeat("!a ", size/3),
		"staircase":       staircase(size),
		"colons":          strings.Repeat("a: ", size/3),
		"quotes":          strings.Repeat(`"a" `, size/4),
		"blank lines":     "vms: " + strings.Repeat("\n", size-10) + "x",
		"nul":             strings.Repeat("\x00", size),
		"long scalar":     "enforcement: " + strings.Repeat("a", size-20),
		"block scalar":    "enforcement: |\n" + strings.Repeat(" a\n", size/3-10),
		"many keys":       manyKeys("", size),
		"many inner keys": manyKeys("- ", size),
		"many flow keys":  "vms: [{" + strings.ReplaceAll(manyKeys("", size-100), "\n", ",\n") + "}]",
		"commented keys":  "a:\n" + strings.ReplaceAll(manyKeys("  ", size/2), "\n", "\n#\n"),
		"anchored keys":   strings.ReplaceAll(manyKeys("", size/2), "k", "&a k"),
		"keys without :":  strings.ReplaceAll(strings.ReplaceAll(manyKeys("", size), ": 1", ""), "k", "? k"),
		"many values":     "vms:\n" + strings.Repeat(" - a\n", size/5-10),
		"flow values":     "vms: [" + strings.Repeat("a,\n", size/3-10) + "]",
		"many mappings":   "vms:\n" + strings.Repeat(" - a: 1\n", size/8-10),
		"comments":        strings.Repeat("# a\n", size/4) + "a: b",
		"alias bomb":      bomb,
		"self alias":      "vms: &a [*a]\n",
		"endless alias":   "vms: &a *a\n",
		"repeated ports":  "policy: {rules: [{ports: &p [" + ports + "]}\n" + strings.Repeat(",{ports: *p}\n", 1000) + "]}",
		"documents":       strings.Repeat("---\n", size/4),
		"directives":      strings.Repeat("%A\n", size/3),
		"escaped newline": "enforcement: \"" + strings.Repeat("\\\n", size/2-20),
	}
	for name, text := range texts {
		t.Run(name, func(t *testing.T) {
			start := time.Now()
			_, err := config.Parse("gateway.yaml", []byte(text))
			t.Log(time.Since(start))
			if name == "repeated ports" && (err == nil || !strings.Contains(err.Error(), "those repeated by aliases included")) {
				t.Errorf("not bounded: %v", err)
			}
			if strings.Contains(name, "keys") && (err == nil || !strings.Contains(err.Error(), "keys")) {
				t.Errorf("not bounded: %v", err) // the parser's time grows with the square of them
			}
			if err == nil && name != "documents" && name != "blank lines" {
				t.Error("accepted")
			}
			if err != nil && len(err.Error()) > 100_000 {
				t.Errorf("a report of %d bytes", len(err.Error()))
			}
		})
	}
}

func staircase(size int) string {
	var b strings.Builder
	for depth := 0; b.Len()+depth+3 < size; depth++ {
		b.WriteString(strings.Repeat(" ", depth) + "a:\n")
	}
	return b.String()
}

// manyKeys is one mapping with many keys, inside prefix.
func manyKeys(prefix string, size int) string {
	var b strings.Builder
	for i := 0; b.Len() < size-30; i++ {
		fmt.Fprintf(&b, "%sk%d: 1\n", prefix, i)
		prefix = strings.Repeat(" ", len(prefix))
	}
	return b.String()
}
