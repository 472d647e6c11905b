package main

import (
	"bufio"
	"context"
	"flag"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"time"
)

// transferResult is one line of transfer: progress about every second, and
// one with Done at the end.
type transferResult struct {
	Bytes  int64  `json:"bytes"`
	Port   int    `json:"port"`
	Done   bool   `json:"done"`
	OK     bool   `json:"ok"`
	SHA256 string `json:"sha256,omitempty"`
	tcpInfo
	MS    float64 `json:"ms"`
	Error string  `json:"error,omitempty"`
}

// transfer fetches SIZE bytes from a server (serve) at RATE bytes a second, or
// sends them with -upload, and checks their SHA-256. A connection that makes
// no progress for the timeout has failed.
func transfer(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("transfer", flag.ContinueOnError)
	upload := flags.Bool("upload", false, "send instead of fetch")
	source := flags.Int("source-port", 0, "local port; 0 lets the kernel choose")
	timeout := flags.Duration("timeout", 30*time.Second, "without any progress")
	positional, err := parse(flags, args, 3)
	if err != nil {
		return err
	}
	size, sizeErr := strconv.ParseInt(positional[1], 10, 64)
	rate, rateErr := strconv.ParseInt(positional[2], 10, 64)
	if sizeErr != nil || rateErr != nil || size < 0 || rate < 0 {
		return fmt.Errorf("%w: SIZE and RATE are bytes, not %q", errUsage, positional[1:])
	}
	begin := time.Now()
	conn, err := dialer(*source, *timeout).DialContext(ctx, "tcp", positional[0])
	if err != nil {
		print(transferResult{Done: true, MS: since(begin), Error: err.Error()})
		return err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	report := func(bytes int64) transferResult {
		info, _ := infoOf(conn) // zero on a connection that has just been closed
		return transferResult{Bytes: bytes, Port: conn.LocalAddr().(*net.TCPAddr).Port, tcpInfo: info, MS: since(begin)}
	}
	live := &progressing{Conn: conn, timeout: *timeout}
	move := fetch
	if *upload {
		move = send
	}
	bytes, sum, err := move(live, size, rate, func(n int64) { print(report(n)) })
	if ctx.Err() != nil {
		return ctx.Err()
	}
	last := report(bytes)
	last.Done, last.SHA256 = true, sum
	if err == nil && sum != checksum(size) {
		err = fmt.Errorf("the checksum of %d bytes is %s, not as it must be", bytes, sum)
	}
	if err != nil {
		last.Error = err.Error()
	}
	last.OK = err == nil
	print(last)
	return err
}

func fetch(conn net.Conn, size, rate int64, progress func(int64)) (int64, string, error) {
	if _, err := fmt.Fprintf(conn, "GET /bytes/%d?rate=%d HTTP/1.1\r\nHost: lab\r\n\r\n", size, rate); err != nil {
		return 0, "", err
	}
	in := bufio.NewReader(conn)
	if _, err := readAnswer(in); err != nil {
		return 0, "", err
	}
	return copyPaced(io.Discard, io.LimitReader(in, size), 0, progress)
}

func send(conn net.Conn, size, rate int64, progress func(int64)) (int64, string, error) {
	if _, err := fmt.Fprintf(conn, "PUT /bytes/%d HTTP/1.1\r\nHost: lab\r\nContent-Length: %d\r\n\r\n", size, size); err != nil {
		return 0, "", err
	}
	n, _, err := copyPaced(conn, content(size), rate, progress)
	if err != nil {
		return n, "", err
	}
	headers, err := readAnswer(bufio.NewReader(conn))
	return n, headers["x-sha256"], err
}

// readAnswer reads the head of an HTTP answer and wants it to be 200.
func readAnswer(in *bufio.Reader) (map[string]string, error) {
	headers := map[string]string{}
	for i := range 64 {
		line, err := in.ReadSlice('\n')
		if err != nil {
			return nil, fmt.Errorf("cannot read the answer: %w", err)
		}
		text := strings.TrimRight(string(line), "\r\n")
		if text == "" {
			break
		}
		if i == 0 && !strings.HasPrefix(text, "HTTP/1.1 200 ") {
			return nil, fmt.Errorf("the server answered %q", text)
		}
		name, value, _ := strings.Cut(text, ":")
		headers[strings.ToLower(name)] = strings.TrimSpace(value)
	}
	return headers, nil
}

// progressing is a connection whose reads and writes each have a deadline.
type progressing struct {
	net.Conn
	timeout time.Duration
}

func (p *progressing) Read(b []byte) (int, error) {
	if err := p.SetReadDeadline(time.Now().Add(p.timeout)); err != nil {
		return 0, err
	}
	return p.Conn.Read(b)
}

func (p *progressing) Write(b []byte) (int, error) {
	if err := p.SetWriteDeadline(time.Now().Add(p.timeout)); err != nil {
		return 0, err
	}
	return p.Conn.Write(b)
}
