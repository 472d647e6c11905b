package main

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"net"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// connectOptions are the flags of connect.
type connectOptions struct {
	source  int
	size    int64
	hold    time.Duration
	timeout time.Duration
}

// connectResult is one line of connect. Times are in milliseconds.
type connectResult struct {
	OK        bool    `json:"ok"`
	Port      int     `json:"port"` // local port, 0 if it never got one
	Local     string  `json:"local,omitempty"`
	ConnectMS float64 `json:"connect_ms"` // until the handshake was done
	MS        float64 `json:"ms"`         // until the echo was back
	tcpInfo
	Error string `json:"error,omitempty"`
}

// connect opens connections to an echo server, one after the other, sends
// some bytes on each and checks that they come back.
func connect(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("connect", flag.ContinueOnError)
	count := flags.Int("n", 1, "how many connections; 0 is without end")
	every := flags.Duration("every", time.Second, "from the start of one connection to that of the next")
	var options connectOptions
	flags.IntVar(&options.source, "source-port", 0, "local port; 0 lets the kernel choose")
	flags.Int64Var(&options.size, "size", 64, "bytes to send and get back")
	flags.DurationVar(&options.hold, "hold", 0, "keep the connection open for this long after the echo")
	flags.DurationVar(&options.timeout, "timeout", 10*time.Second, "for the handshake, and again for the echo")
	target, err := parse(flags, args, 1)
	if err != nil {
		return err
	}
	failed := 0
	for i := 0; *count == 0 || i < *count; i++ {
		begin := time.Now()
		result := connectOnce(ctx, target[0], options)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		print(result)
		if !result.OK {
			failed++
		}
		last := *count > 0 && i == *count-1
		if !last && !pause(ctx, *every-time.Since(begin)) {
			return ctx.Err()
		}
	}
	if failed > 0 {
		return fmt.Errorf("%d of %d connections failed", failed, *count)
	}
	return nil
}

func connectOnce(ctx context.Context, target string, options connectOptions) (result connectResult) {
	begin := time.Now()
	fail := func(err error) connectResult {
		result.MS, result.Error = since(begin), err.Error()
		return result
	}
	conn, err := dialer(options.source, options.timeout).DialContext(ctx, "tcp", target)
	if err != nil {
		result.Port = options.source
		return fail(err)
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	local := conn.LocalAddr().(*net.TCPAddr)
	result.ConnectMS, result.Local, result.Port = since(begin), local.String(), local.Port
	if err := echoOnce(conn, options.size, options.timeout); err != nil {
		return fail(err)
	}
	if result.tcpInfo, err = infoOf(conn); err != nil {
		return fail(err)
	}
	result.OK, result.MS = true, since(begin)
	pause(ctx, options.hold)
	return result
}

// echoOnce sends content and wants the same back, while it is still sending.
func echoOnce(conn net.Conn, size int64, timeout time.Duration) error {
	if err := conn.SetDeadline(time.Now().Add(timeout)); err != nil {
		return err
	}
	sent := make(chan error, 1)
	go func() {
		_, err := io.Copy(conn, content(size))
		sent <- err
	}()
	want, got := make([]byte, 16<<10), make([]byte, 16<<10)
	wanted := content(size)
	for rest := size; rest > 0; {
		n := min(rest, int64(len(want)))
		if _, err := io.ReadFull(conn, got[:n]); err != nil {
			return err
		}
		if _, err := io.ReadFull(wanted, want[:n]); err != nil {
			return err
		}
		if !bytes.Equal(got[:n], want[:n]) {
			return fmt.Errorf("the echo differs within its bytes %d to %d", size-rest, size-rest+n)
		}
		rest -= n
	}
	return <-sent
}

// dialer makes a dialer for a local port, which may still be in the last
// states of an earlier connection.
func dialer(source int, timeout time.Duration) *net.Dialer {
	d := &net.Dialer{Timeout: timeout, KeepAlive: -1}
	if source > 0 {
		d.LocalAddr = &net.TCPAddr{Port: source}
		d.Control = func(_, _ string, raw syscall.RawConn) error {
			var optErr error
			err := raw.Control(func(fd uintptr) {
				optErr = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
			})
			if err != nil {
				return err
			}
			return optErr
		}
	}
	return d
}

func since(begin time.Time) float64 { return float64(time.Since(begin).Microseconds()) / 1000 }
