package snort

import (
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func split(chunks []string) (lines []string, overlong int) {
	s := splitter{line: func(l []byte) { lines = append(lines, string(l)) }, overlong: func() { overlong++ }}
	for _, c := range chunks {
		s.Write([]byte(c))
	}
	return lines, overlong
}

func TestSplitter_LongLinesAreSkippedAndCounted(t *testing.T) {
	longest, tooLong := strings.Repeat("x", maxLine), strings.Repeat("y", maxLine+1)
	lines, overlong := split([]string{"a\n", longest, "\n", tooLong, "\nb\n" + tooLong + "\nc\n", tooLong, tooLong, "\nd", "e\nrest"})
	if want := []string{"a", longest, "b", "c", "de"}; !slices.Equal(lines, want) {
		t.Errorf("%d lines", len(lines))
	}
	if overlong != 3 {
		t.Errorf("%d overlong lines, want 3", overlong)
	}
}

// However the stream is cut, the lines are the same.
func TestSplitter_ChunksDoNotMatter(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.StringMatching(`[ab\n]{0,200}`).Draw(t, "text")
		want := strings.Split(text, "\n")
		want = want[:len(want)-1] // a line without its end is none yet
		var chunks []string
		for rest := text; rest != ""; {
			n := rapid.IntRange(1, len(rest)).Draw(t, "n")
			chunks, rest = append(chunks, rest[:n]), rest[n:]
		}
		if got, _ := split(chunks); !slices.Equal(got, want) {
			t.Fatalf("%q: %q, want %q", chunks, got, want)
		}
	})
}
