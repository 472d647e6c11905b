package main

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"io"
	"net"
	"time"
)

// udp sends datagrams to an echo server from one socket and prints a line for
// each, answered or not.
func udp(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("udp", flag.ContinueOnError)
	count := flags.Int("n", 1, "how many datagrams; 0 is without end")
	every := flags.Duration("every", time.Second, "from one datagram to the next")
	source := flags.Int("source-port", 0, "local port; 0 lets the kernel choose")
	size := flags.Int64("size", 64, "payload bytes")
	timeout := flags.Duration("timeout", 2*time.Second, "for the echo")
	target, err := parse(flags, args, 1)
	if err != nil {
		return err
	}
	d := net.Dialer{LocalAddr: &net.UDPAddr{Port: *source}}
	conn, err := d.DialContext(ctx, "udp", target[0])
	if err != nil {
		return err
	}
	defer conn.Close()
	port := conn.LocalAddr().(*net.UDPAddr).Port
	payload, err := io.ReadAll(content(*size))
	if err != nil {
		return err
	}
	failed := 0
	for i := 0; *count == 0 || i < *count; i++ {
		begin := time.Now()
		result := map[string]any{"ok": true, "port": port}
		if err := echoPacket(conn, payload, *timeout); err != nil {
			failed++
			result["ok"], result["error"] = false, err.Error()
		}
		result["ms"] = since(begin)
		print(result)
		last := *count > 0 && i == *count-1
		if !last && !pause(ctx, *every-time.Since(begin)) {
			return ctx.Err()
		}
	}
	if failed > 0 {
		return fmt.Errorf("%d of %d datagrams were not answered", failed, *count)
	}
	return nil
}

func echoPacket(conn net.Conn, payload []byte, timeout time.Duration) error {
	if err := conn.SetDeadline(time.Now().Add(timeout)); err != nil {
		return err
	}
	if _, err := conn.Write(payload); err != nil {
		return err
	}
	buffer := make([]byte, 64<<10)
	n, err := conn.Read(buffer)
	if err != nil {
		return err
	}
	if !bytes.Equal(buffer[:n], payload) {
		return fmt.Errorf("the echo differs")
	}
	return nil
}
