package main

import (
	"context"
	"flag"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// flood opens connections to one target as fast as it can and resets each at
// once, so that nothing of them lingers in the kernel when it is killed. A
// line a second tells how it goes. With -keep it also holds one ordinary
// connection open and says whether that still lives.
func flood(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("flood", flag.ContinueOnError)
	workers := flags.Int("workers", 16, "connections in the making at any time")
	timeout := flags.Duration("timeout", 500*time.Millisecond, "of one connection")
	keep := flags.String("keep", "", "HOST:PORT of an echo server to stay connected with")
	scan := flags.String("scan", "", "HOST:PORT,… to knock at after the wait, each once, before the flood")
	wait := flags.Duration("wait", 0, "before the flood starts; the kept connection is opened at once")
	target, err := parse(flags, args, 1)
	if err != nil {
		return err
	}
	var running sync.WaitGroup
	defer running.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if *keep != "" {
		running.Go(func() { keepOpen(ctx, *keep) })
	}
	print(map[string]any{"pid": os.Getpid(), "flood": target[0]})
	if !pause(ctx, *wait) {
		return ctx.Err()
	}
	for _, door := range strings.FieldsFunc(*scan, func(r rune) bool { return r == ',' }) {
		if conn, err := dialer(0, *timeout).DialContext(ctx, "tcp", door); err == nil {
			conn.Close()
		}
	}
	var tried, made atomic.Int64
	for range *workers {
		running.Go(func() {
			for ctx.Err() == nil {
				tried.Add(1)
				conn, err := dialer(0, *timeout).DialContext(ctx, "tcp", target[0])
				if err != nil {
					continue
				}
				made.Add(1)
				_ = conn.(*net.TCPConn).SetLinger(0)
				conn.Close()
			}
		})
	}
	for pause(ctx, time.Second) {
		print(map[string]any{"tried": tried.Load(), "made": made.Load()})
	}
	return ctx.Err()
}

// keepOpen echoes a few bytes four times a second over one connection and
// prints each change between alive and not. A connection that is cut off
// stays silent, so a missing echo is what tells.
func keepOpen(ctx context.Context, target string) {
	conn, err := dialer(0, 10*time.Second).DialContext(ctx, "tcp", target)
	if err != nil {
		print(map[string]any{"kept": false, "error": err.Error()})
		return
	}
	defer conn.Close()
	_ = conn.(*net.TCPConn).SetLinger(0)
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()
	port := conn.LocalAddr().(*net.TCPAddr).Port
	alive := false
	for {
		err := echoOnce(conn, 16, 2*time.Second)
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			print(map[string]any{"kept": false, "port": port, "error": err.Error()})
			return
		}
		if !alive {
			alive = true
			print(map[string]any{"kept": true, "port": port})
		}
		if !pause(ctx, 250*time.Millisecond) {
			return
		}
	}
}
