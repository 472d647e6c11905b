package event

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vmgate/vmgate/pkg/verdict"
)

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func discard() *slog.Logger { return slog.New(slog.DiscardHandler) }

// lines reads a file of JSON lines.
func lines(t *testing.T, path string) (events []Event) {
	t.Helper()
	f, err := os.Open(path)
	check(t, err)
	defer f.Close()
	scanner := bufio.NewScanner(f)
	for scanner.Scan() {
		var e Event
		if err := json.Unmarshal(scanner.Bytes(), &e); err != nil {
			t.Fatalf("%s has the line %q: %v", path, scanner.Text(), err)
		}
		events = append(events, e)
	}
	check(t, scanner.Err())
	return events
}

func TestLog_WritesTheFieldNamesOfEVE(t *testing.T) {
	path := filepath.Join(t.TempDir(), "events.json")
	l, err := OpenLog(path, 1<<20, discard())
	check(t, err)
	l.Write(Event{
		Timestamp: time.Date(2026, 1, 2, 3, 4, 5, 6000, time.UTC), Type: "decision",
		SrcIP: "10.0.0.1", SrcPort: 40000, DestIP: "10.0.0.2", DestPort: 80, Proto: "TCP", FlowID: 7, CommunityID: "1:x",
		SrcProcess: &verdict.Process{Instance: verdict.Instance{VM: "app1", PID: 4}, Name: "nc\n\"x"},
	})
	check(t, l.Close())
	text, err := os.ReadFile(path)
	check(t, err)
	if bytes.Count(text, []byte("\n")) != 1 {
		t.Errorf("%q is not one line", text)
	}
	var got map[string]any
	check(t, json.Unmarshal(text, &got))
	for field, want := range map[string]any{
		"timestamp": "2026-01-02T03:04:05.000006Z", "event_type": "decision",
		"src_ip": "10.0.0.1", "src_port": 40000.0, "dest_ip": "10.0.0.2", "dest_port": 80.0,
		"proto": "TCP", "flow_id": 7.0, "community_id": "1:x",
	} {
		if got[field] != want {
			t.Errorf("%s = %v, want %v", field, got[field], want)
		}
	}
	if name := got["src_process"].(map[string]any)["name"]; name != "nc\n\"x" {
		t.Errorf("a hostile process name came out as %q", name)
	}
}

func TestLog_AppendsAndRotatesToOneOldFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "events.json")
	check(t, os.WriteFile(path, []byte(`{"event_type":"from before"}`+"\n"), 0o640))
	const limit = 4096
	l, err := OpenLog(path, limit, discard())
	check(t, err)
	const n = 100
	for i := range n {
		l.Write(Event{Type: "decision", FlowID: uint64(i + 1), Message: strings.Repeat("x", 100)})
	}
	check(t, l.Close())

	old, now := lines(t, path+".1"), lines(t, path)
	if now[len(now)-1].FlowID != n || len(old) == 0 || old[len(old)-1].FlowID+1 != now[0].FlowID {
		t.Errorf("%d old events up to %d, then %d from %d on", len(old), old[len(old)-1].FlowID, len(now), now[0].FlowID)
	}
	for _, p := range []string{path, path + ".1"} {
		info, err := os.Stat(p)
		check(t, err)
		if info.Size() > limit {
			t.Errorf("%s has %d bytes, the limit is %d", p, info.Size(), limit)
		}
	}
	files, err := os.ReadDir(filepath.Dir(path))
	check(t, err)
	if len(files) != 2 {
		t.Errorf("%d files, want 2", len(files))
	}

	l, err = OpenLog(path, limit, discard())
	check(t, err)
	l.Write(Event{Type: "operator"})
	check(t, l.Close())
	if again := lines(t, path); len(again) != len(now)+1 {
		t.Errorf("%d events after reopening, want %d", len(again), len(now)+1)
	}
}

// The disk is slower than the writers, here because it is a pipe nobody reads.
func TestLog_NeverBlocksAndTellsWhatItLost(t *testing.T) {
	path := filepath.Join(t.TempDir(), "events.json")
	r, w, err := os.Pipe()
	check(t, err)
	defer r.Close()
	l := &Log{
		queue: make(chan Event, logQueue), done: make(chan struct{}), log: discard(),
		file: &rotatingFile{path: path, max: 1 << 40, f: w},
	}
	go l.run()

	written := make(chan struct{})
	const n = 3 * logQueue
	go func() {
		defer close(written)
		for range n {
			l.Write(Event{Type: "decision", Message: strings.Repeat("x", 100)})
		}
	}()
	select {
	case <-written:
	case <-time.After(10 * time.Second):
		t.Fatal("Write waited for the disk")
	}
	lost := l.Lost()
	if lost == 0 {
		t.Fatal("no event was lost: the test shows nothing")
	}
	closed := make(chan error, 1)
	go func() { closed <- l.Close() }()
	told, arrived := uint64(0), 0
	scanner := bufio.NewScanner(r)
	for scanner.Scan() {
		var e Event
		check(t, json.Unmarshal(scanner.Bytes(), &e))
		if e.Type != TypeLost {
			arrived++
			continue
		}
		var some uint64
		if _, err := fmt.Sscanf(e.Message, "%d events lost", &some); err != nil {
			t.Fatalf("lost event says %q", e.Message)
		}
		told += some
	}
	check(t, <-closed)
	if told != lost || uint64(arrived)+lost != n {
		t.Errorf("%d arrived, %d lost, %d told of %d", arrived, lost, told, n)
	}
	l.Write(Event{}) // after Close: counted, no panic
	if l.Lost() != lost+1 {
		t.Error("an event after Close was not counted as lost")
	}
}

func TestLog_TroubleWithTheDiskIsLoggedOnce(t *testing.T) {
	if _, err := os.Stat("/dev/full"); err != nil {
		t.Skip("needs /dev/full")
	}
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	check(t, err)
	var out bytes.Buffer
	l := &Log{
		queue: make(chan Event, logQueue), done: make(chan struct{}), log: slog.New(slog.NewTextHandler(&out, nil)),
		file: &rotatingFile{path: "/dev/full", max: 1 << 40, f: full},
	}
	go l.run()
	for range 10 {
		l.Write(Event{Type: "decision"})
	}
	check(t, l.Close())
	if got := strings.Count(out.String(), "cannot write the event log"); got != 1 || !strings.Contains(out.String(), "no space left") {
		t.Errorf("logged %d times: %s", got, &out)
	}
	if l.Lost() != 10 {
		t.Errorf("%d lost, want 10", l.Lost())
	}
}

func TestOpenLog_NamesTheFileItCannotOpen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "absent", "events.json")
	if _, err := OpenLog(path, 1, discard()); err == nil || !strings.Contains(err.Error(), path) {
		t.Errorf("OpenLog: %v, want an error that names %s", err, path)
	}
}
