package snort

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// follow runs a watch over dir; the lines come out of the channel.
func follow(t *testing.T, dir string) (lines chan string, stop func()) {
	t.Helper()
	lines = make(chan string, 100000)
	src, err := watchFiles(dir, snortAlerts, &account{name: "root"}, &splitter{line: func(l []byte) { lines <- string(l) }, overlong: func() {}})
	must(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- src.serve(ctx) }()
	stop = func() {
		cancel()
		must(t, <-ended)
	}
	return lines, stop
}

func next(t *testing.T, lines chan string) string {
	t.Helper()
	select {
	case l := <-lines:
		return l
	case <-time.After(5 * time.Second):
		t.Fatal("no line")
		return ""
	}
}

func appendTo(t *testing.T, path string) *os.File {
	t.Helper()
	f, err := os.OpenFile(path, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	must(t, err)
	t.Cleanup(func() { f.Close() })
	return f
}

func TestFileWatch_ReadsAllThreadsFilesAndNothingElse(t *testing.T) {
	dir := t.TempDir()
	lines, stop := follow(t, dir)
	one, two, other := appendTo(t, dir+"/0_alert_json.txt"), appendTo(t, dir+"/1_alert_json.txt"), appendTo(t, dir+"/stats.txt")
	fmt.Fprint(other, "no alert\n")
	fmt.Fprint(one, "first, be")
	fmt.Fprint(two, "second\n")
	if l := next(t, lines); l != "second" {
		t.Errorf("line %q", l)
	}
	fmt.Fprint(one, "gun and ended\n")
	if l := next(t, lines); l != "first, begun and ended" {
		t.Errorf("line %q", l)
	}
	fmt.Fprint(one, "last words\n")
	stop()
	if l := next(t, lines); l != "last words" {
		t.Errorf("line %q", l)
	}
	if len(lines) != 0 {
		t.Errorf("more: %q", <-lines)
	}
}

func TestFileWatch_NewFileOfTheSameName(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "alert_json.txt")
	lines, stop := follow(t, dir)
	defer stop()
	fmt.Fprint(appendTo(t, path), "old\n")
	next(t, lines)
	must(t, os.Remove(path))
	fmt.Fprint(appendTo(t, path), "new\n")
	if l := next(t, lines); l != "new" {
		t.Errorf("line %q", l)
	}
}

// A flood writes 20 MB a second. What was read must not stay in memory, and
// nothing of what comes meanwhile may be lost.
func TestFileWatch_FreesWhatWasReadWithoutLosingALine(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "alert_json.txt")
	lines, stop := follow(t, dir)
	f := appendTo(t, path)
	const count = 40000
	padding := strings.Repeat("x", 1000)
	for i := range count {
		fmt.Fprintf(f, "%d %s\n", i, padding)
	}
	for i := range count {
		if l := next(t, lines); l != fmt.Sprintf("%d %s", i, padding) {
			t.Fatalf("line %d is %.20q", i, l)
		}
	}
	stop()
	var info unix.Stat_t
	must(t, unix.Stat(path, &info))
	if held := info.Blocks * 512; held > 2*freeAfter {
		t.Errorf("%d of %d bytes are still held", held, info.Size)
	}
}

func TestFileWatch_TruncationFromOutside(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "alert_json.txt")
	lines, stop := follow(t, dir)
	defer stop()
	f := appendTo(t, path)
	fmt.Fprint(f, "one long line\n")
	got := []string{next(t, lines)}
	must(t, os.Truncate(path, 0))
	fmt.Fprint(f, "two\n")
	got = append(got, next(t, lines))
	if !slices.Equal(got, []string{"one long line", "two"}) {
		t.Errorf("lines %q", got)
	}
}
