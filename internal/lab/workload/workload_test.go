package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"
)

// listen serves connections with a function for as long as the test runs.
func listen(t *testing.T, serve func(net.Conn)) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	t.Cleanup(func() { listener.Close(); <-done })
	go func() {
		defer close(done)
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			serve(conn)
			conn.Close()
		}
	}()
	return listener.Addr().String()
}

func TestConnect(t *testing.T) {
	options := connectOptions{size: 40_000, timeout: 5 * time.Second}
	if result := connectOnce(t.Context(), listen(t, answer), options); !result.OK || result.Port == 0 {
		t.Errorf("against an honest server: %+v", result)
	}
	liar := listen(t, func(conn net.Conn) {
		all := make([]byte, options.size)
		_, _ = io.ReadFull(conn, all)
		all[30_000] ^= 1
		_, _ = conn.Write(all)
	})
	if result := connectOnce(t.Context(), liar, options); result.OK || !strings.Contains(result.Error, "differs") {
		t.Errorf("a changed byte was not noticed: %+v", result)
	}
	closed := listen(t, func(conn net.Conn) {})
	if result := connectOnce(t.Context(), closed, options); result.OK || result.Error == "" {
		t.Errorf("a closed connection was not noticed: %+v", result)
	}
}

func TestTransfer(t *testing.T) {
	for _, upload := range []string{"-upload", "-upload=false"} {
		if err := transfer(t.Context(), []string{upload, listen(t, answer), "100000", "0"}); err != nil {
			t.Errorf("%s: %v", upload, err)
		}
	}
	liar := listen(t, func(conn net.Conn) {
		_, _ = bufio.NewReader(conn).ReadString('\n')
		_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\n\r\n"+strings.Repeat("x", 1000))
	})
	if err := transfer(t.Context(), []string{liar, "1000", "0"}); err == nil || !strings.Contains(err.Error(), "checksum") {
		t.Errorf("wrong content was not noticed: %v", err)
	}
	short := listen(t, func(conn net.Conn) {
		_, _ = bufio.NewReader(conn).ReadString('\n')
		_, _ = io.WriteString(conn, "HTTP/1.1 200 OK\r\n\r\n")
		_, _ = io.Copy(conn, content(999))
	})
	if err := transfer(t.Context(), []string{short, "1000", "0"}); err == nil {
		t.Error("a missing byte was not noticed")
	}
}

func TestCopyPaced_KeepsTheRate(t *testing.T) {
	begin := time.Now()
	var out bytes.Buffer
	n, sum, err := copyPaced(&out, content(50_000), 250_000, func(int64) {})
	if err != nil || n != 50_000 || sum != checksum(50_000) {
		t.Errorf("got %d, %s, %v", n, sum, err)
	}
	if took := time.Since(begin); took < 190*time.Millisecond {
		t.Errorf("50,000 bytes at 250,000 a second took %v", took)
	}
}

func TestParse(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, args := range [][]string{{"connect"}, {"connect", "a", "b"}, {"transfer", "a", "x", "1"}, {"serve"}, {"sleep", "-never"}} {
		if err := commands()[args[0]](ctx, args[1:]); !errors.Is(err, errUsage) {
			t.Errorf("%q: got %v", args, err)
		}
	}
}

func FuzzReadRequest(f *testing.F) {
	f.Add("GET /bytes/10?rate=5 HTTP/1.1\r\nHost: x\r\n\r\n")
	f.Add("PUT /bytes/-1 HTTP/1.1\n\n")
	f.Fuzz(func(t *testing.T, text string) {
		_, size, rate, err := readRequest(bufio.NewReader(strings.NewReader(text)))
		if err == nil && (size < 0 || rate < 0) {
			t.Errorf("accepted size %d, rate %d", size, rate)
		}
	})
}
