package qmp

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const greeting = `{"QMP": {"version": {"qemu": {"micro": 22, "minor": 2, "major": 7}}, "capabilities": ["oob"]}}` + "\n"

// monitor plays one: it greets, agrees to the negotiation, and gives the answer
// to the one command after it.
func monitor(t *testing.T, answer func(conn net.Conn, request string)) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "m")
	listener, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	t.Cleanup(func() { listener.Close(); <-done })
	go func() {
		defer close(done)
		conn, err := listener.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		fmt.Fprint(conn, greeting)
		lines := bufio.NewScanner(conn)
		for n := 1; lines.Scan(); n++ {
			if n == 1 {
				fmt.Fprintf(conn, `{"return": {}, "id": %d}`+"\n", n)
				continue
			}
			answer(conn, lines.Text())
		}
	}()
	return path
}

func TestExecute(t *testing.T) {
	for _, c := range []struct{ name, answer, want, err string }{
		{"an answer", `{"return": "yes", "id": 2}`, "yes", ""},
		{"behind events and empty lines", "\r\n" + `{"event": "STOP", "timestamp": {"seconds": 1}}` + "\n" + `{"return": "yes", "id": 2}`, "yes", ""},
		{"a refusal", `{"error": {"class": "CommandNotFound", "desc": "no such thing"}, "id": 2}`, "", "no such thing"},
		{"a long refusal", `{"error": {"class": "x", "desc": "` + strings.Repeat("a", 5000) + `"}, "id": 2}`, "", "aaa…"},
		{"an answer to another", `{"return": "yes", "id": 1}`, "", "not asked"},
		{"an answer to nothing", `{"return": "yes"}`, "", "not asked"},
		{"no result", `{"id": 2}`, "", "without a result"},
		{"a result of another kind", `{"return": {"yes": 1}, "id": 2}`, "", "makes no sense"},
		{"no JSON", `hello`, "", "not a message"},
		{"endless", strings.Repeat("a", maxMessage+1), "", "more than"},
		{"events for ever", strings.Repeat(`{"event": "X"}`+"\n", maxEvents), "", "no answer"},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := monitor(t, func(conn net.Conn, _ string) { fmt.Fprintln(conn, c.answer) })
			m, err := Dial(t.Context(), path)
			if err != nil {
				t.Fatal(err)
			}
			defer m.Close()
			var got string
			err = m.Execute(t.Context(), "ask", nil, &got)
			if got != c.want || (err == nil) != (c.err == "") || err != nil && !strings.Contains(err.Error(), c.err) {
				t.Errorf("%q, %v; want %q, %q", got, err, c.want, c.err)
			}
			if len(fmt.Sprint(err)) > 1000 {
				t.Errorf("an error of %d bytes", len(err.Error()))
			}
			// A refusal is an answer; after anything else nothing can be believed.
			refused := (*Error)(nil)
			if broken := errors.Is(m.ended, ErrGone); broken == (err == nil || errors.As(err, &refused)) {
				t.Errorf("after %v the connection is usable: %v", err, !broken)
			}
		})
	}
}

func TestExecute_EndsWithItsContext(t *testing.T) {
	m, err := Dial(t.Context(), monitor(t, func(net.Conn, string) {}))
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if err := m.Execute(ctx, "ask", nil, nil); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v", err)
	}
	if err := m.Execute(t.Context(), "ask", nil, nil); !errors.Is(err, ErrGone) {
		t.Errorf("then %v", err)
	}
}

func TestDial(t *testing.T) {
	if _, err := Dial(t.Context(), filepath.Join(t.TempDir(), "none")); err == nil || !strings.Contains(err.Error(), "cannot talk to the monitor") {
		t.Errorf("%v", err)
	}
	silent := filepath.Join(t.TempDir(), "s")
	listener, err := net.Listen("unix", silent)
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := Dial(ctx, silent); !errors.Is(err, ErrBusy) {
		t.Errorf("a silent monitor: %v", err)
	}
}

// FuzzMessages: whatever a monitor sends, an answer or an error comes of it.
func FuzzMessages(f *testing.F) {
	f.Add([]byte(greeting + `{"return": {}, "id": 1}` + "\n"))
	f.Add([]byte(`{"event": "STOP"}` + "\n" + `{"return": "Host virtual address", "id": 1}` + "\n"))
	f.Add([]byte(`{"error": {"class": "x"}, "id": 1}`))
	f.Fuzz(func(t *testing.T, sent []byte) {
		r := &reader{from: bufio.NewReaderSize(strings.NewReader(string(sent)), 16)}
		var text string
		_ = r.answer(1, &text)
		if len(text) > len(sent)*3 {
			t.Errorf("%d bytes became %d", len(sent), len(text))
		}
	})
}
