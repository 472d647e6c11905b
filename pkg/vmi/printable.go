package vmi

import (
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// printable is how text out of a guest is shown: on one line of valid UTF-8, as
// terminals, logs and metrics need it. What is not printable is escaped and not
// left out: else a process could bear a name that is shown as another's.
func printable(s string) string { return printableUpTo(s, 256) }

// printableUpTo is printable for at most limit bytes of s.
func printableUpTo(s string, limit int) string {
	s = s[:min(len(s), limit)]
	if isPlain(s) {
		return s
	}
	var b strings.Builder
	for len(s) > 0 {
		r, n := utf8.DecodeRuneInString(s)
		switch {
		case r == utf8.RuneError && n == 1:
			fmt.Fprintf(&b, `\x%02x`, s[0])
		case strconv.IsPrint(r):
			b.WriteString(s[:n])
		default:
			quoted := strconv.QuoteRune(r)
			b.WriteString(quoted[1 : len(quoted)-1])
		}
		s = s[n:]
	}
	return b.String()
}

// isPlain says whether s is printable ASCII throughout, as most text is.
func isPlain(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' {
			return false
		}
	}
	return true
}
