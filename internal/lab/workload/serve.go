package main

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
)

// serve listens on TCP and UDP ports. A TCP connection that starts with an
// HTTP method is answered as one HTTP/1.1 exchange (GET or PUT of /bytes/SIZE
// with an optional ?rate=BYTES-A-SECOND); any other is echoed. UDP is echoed.
// The handful of HTTP that is needed is written out here, for net/http would
// double the program that an emulated guest loads.
func serve(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("serve", flag.ContinueOnError)
	tcp := flags.String("tcp", "", "TCP ports, separated by commas")
	udp := flags.String("udp", "", "UDP ports, separated by commas")
	if _, err := parse(flags, args, 0); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var closers []io.Closer
	var running sync.WaitGroup
	for _, port := range split(*tcp) {
		listener, err := net.Listen("tcp", ":"+port)
		if err != nil {
			return err
		}
		closers = append(closers, listener)
		running.Go(func() { accept(listener) })
	}
	for _, port := range split(*udp) {
		conn, err := net.ListenPacket("udp", ":"+port)
		if err != nil {
			return err
		}
		closers = append(closers, conn)
		running.Go(func() { echoPackets(conn) })
	}
	if len(closers) == 0 {
		return fmt.Errorf("%w: name a port with -tcp or -udp", errUsage)
	}
	print(map[string]any{"serving": true, "pid": os.Getpid(), "tcp": *tcp, "udp": *udp})
	<-ctx.Done()
	for _, closer := range closers {
		closer.Close()
	}
	running.Wait()
	return nil
}

func split(list string) []string {
	return strings.FieldsFunc(list, func(r rune) bool { return r == ',' })
}

// accept serves connections until the listener is closed. Those still open
// then end with the program.
func accept(listener net.Listener) {
	for {
		conn, err := listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			time.Sleep(10 * time.Millisecond) // out of descriptors: let some close
			continue
		}
		go func() {
			defer conn.Close()
			answer(conn)
		}()
	}
}

// answer tells HTTP from echo by the first four bytes.
func answer(conn net.Conn) {
	in := bufio.NewReader(conn)
	first, _ := in.Peek(4)
	switch string(first) {
	case "GET ", "PUT ":
		if err := exchange(conn, in); err != nil {
			print(map[string]any{"peer": conn.RemoteAddr().String(), "error": err.Error()})
		}
	default:
		_, _ = io.Copy(conn, in)
	}
}

// exchange is one HTTP request and its answer. What was sent to the peer is
// reported with its retransmissions.
func exchange(conn net.Conn, in *bufio.Reader) error {
	method, size, rate, err := readRequest(in)
	if err != nil {
		_, _ = io.WriteString(conn, "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
		return err
	}
	result := map[string]any{"peer": conn.RemoteAddr().String(), "port": peerPort(conn), "method": method}
	if method == "PUT" {
		n, sum, err := copyPaced(io.Discard, io.LimitReader(in, size), 0, func(int64) {})
		if err != nil {
			return err
		}
		result["bytes"], result["ok"] = n, sum == checksum(size)
		_, err = fmt.Fprintf(conn, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX-Sha256: %s\r\nConnection: close\r\n\r\n", sum)
		if err != nil {
			return err
		}
	} else {
		_, err := fmt.Fprintf(conn, "HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nContent-Length: %d\r\nConnection: close\r\n\r\n", size)
		if err != nil {
			return err
		}
		n, _, err := copyPaced(conn, content(size), rate, func(int64) {})
		if err != nil {
			return err
		}
		result["bytes"], result["ok"] = n, true
	}
	info, err := infoOf(conn)
	if err != nil {
		return err
	}
	result["retrans"], result["outoforder"] = info.Retrans, info.OutOfOrder
	print(result)
	return nil
}

func peerPort(conn net.Conn) uint16 {
	address, _ := netip.ParseAddrPort(conn.RemoteAddr().String())
	return address.Port()
}

// readRequest parses "METHOD /bytes/SIZE[?rate=N] HTTP/1.1" and skips the
// headers, all of it at most 4 KiB.
func readRequest(in *bufio.Reader) (method string, size, rate int64, err error) {
	var first string
	for i := range 64 {
		line, err := in.ReadSlice('\n')
		if err != nil {
			return "", 0, 0, fmt.Errorf("cannot read the request: %w", err)
		}
		text := strings.TrimRight(string(line), "\r\n")
		if text == "" {
			break
		}
		if i == 0 {
			first = text
		}
	}
	fields := strings.Fields(first)
	if len(fields) != 3 {
		return "", 0, 0, fmt.Errorf("not a request: %q", first)
	}
	path, query, _ := strings.Cut(fields[1], "?")
	number, ok := strings.CutPrefix(path, "/bytes/")
	if size, err = strconv.ParseInt(number, 10, 64); !ok || err != nil || size < 0 {
		return "", 0, 0, fmt.Errorf("not /bytes/SIZE: %q", path)
	}
	if value, ok := strings.CutPrefix(query, "rate="); ok {
		if rate, err = strconv.ParseInt(value, 10, 64); err != nil || rate < 0 {
			return "", 0, 0, fmt.Errorf("not a rate: %q", value)
		}
	}
	return fields[0], size, rate, nil
}

func echoPackets(conn net.PacketConn) {
	buffer := make([]byte, 64<<10)
	for {
		n, from, err := conn.ReadFrom(buffer)
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err == nil {
			_, _ = conn.WriteTo(buffer[:n], from)
		}
	}
}
