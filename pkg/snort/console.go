package snort

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"strings"
	"sync"
)

// maxComplaints bounds what is kept of a failing engine's messages.
const maxComplaints = 64

// console takes what the engine prints: into the daemon's log, into the reason
// of its end, and as the sign that it is ready. It is written to from one
// goroutine.
type console struct {
	lines splitter
	drv   driver
	log   *slog.Logger
	names *strings.Replacer // of the rule files
	ready chan struct{}     // receives once

	isReady bool

	mu         sync.Mutex   // a grandchild may still print when the reason is asked for
	complaints bytes.Buffer // the engine's own lines that are warnings or worse
	kept       int
	prefix     string        // of the messages that are listened for
	heard      chan<- string // to whom they are told; nil for nobody
}

func newConsole(drv driver, log *slog.Logger, names *strings.Replacer) *console {
	c := &console{drv: drv, log: log, names: names, ready: make(chan struct{}, 1)}
	c.lines = splitter{line: c.print, overlong: func() {}}
	return c
}

func (c *console) print(line []byte) {
	m := c.drv.message(line)
	if m.text == "" {
		return
	}
	c.tell(m.text)
	// An engine's information is the daemon's detail.
	level := m.level
	if level == slog.LevelInfo {
		level = slog.LevelDebug
	}
	c.log.Log(context.Background(), level, "IDS engine says", "message", c.names.Replace(m.text))
	if m.level >= slog.LevelWarn {
		c.keep(line)
	}
	if !c.isReady && c.drv.ready(m) {
		c.isReady = true
		c.forget() // what was said before was no obstacle
		c.ready <- struct{}{}
	}
}

// listen tells the first message that begins with prefix, until forget is called.
// One listens at a time.
func (c *console) listen(prefix string) (first <-chan string, forget func()) {
	heard := make(chan string, 1)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.prefix, c.heard = prefix, heard
	return heard, func() {
		c.mu.Lock()
		defer c.mu.Unlock()
		c.heard = nil
	}
}

func (c *console) tell(text string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.heard != nil && strings.HasPrefix(text, c.prefix) {
		c.heard <- text // has room
		c.heard = nil
	}
}

func (c *console) keep(line []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.kept < maxComplaints {
		c.kept++
		c.complaints.Write(line)
		c.complaints.WriteByte('\n')
	}
}

func (c *console) forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.kept = 0
	c.complaints.Reset()
}

// explain adds to the end of the engine what it complained about.
func (c *console) explain(end error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.kept == 0 {
		return end
	}
	return fmt.Errorf("%w: %w", end, condense(c.drv, c.names.Replace(c.complaints.String()), end))
}

// Write never fails.
func (c *console) Write(p []byte) (int, error) { return c.lines.Write(p) }
