// Package lab makes what the tests and the demonstration run on: network
// namespaces with virtual switches and hosts in them, and small QEMU guests
// whose memory can be read. Everything it makes bears the pid of its process
// in its name, is removed by Close, and is invisible to the rest of the
// machine. It needs root.
package lab

import (
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
)

// Lab owns namespaces and everything in them. Close removes all of it.
type Lab struct {
	log  *slog.Logger
	name string // begins the names of its namespaces

	mu       sync.Mutex
	cleanups []func() error // run last in, first out
}

// New makes an empty lab. What killed processes left of their labs is removed
// on the way. The logger may be nil.
func New(log *slog.Logger) (*Lab, error) {
	if os.Geteuid() != 0 {
		return nil, errors.New("cannot make network namespaces: this needs root")
	}
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	if err := sweep(); err != nil {
		log.Warn("leftovers of an earlier run stay", "error", err)
	}
	return &Lab{log: log, name: Prefix() + strings.ToLower(rand.Text()[:4]) + "-"}, nil
}

// OnClose registers something to undo when the lab closes, before everything
// that was registered earlier.
func (l *Lab) OnClose(undo func() error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cleanups = append(l.cleanups, undo)
}

// Close undoes everything, as far as it gets. It may be called more than once.
func (l *Lab) Close() error {
	var errs []error
	for {
		l.mu.Lock()
		last := len(l.cleanups) - 1
		if last < 0 {
			l.mu.Unlock()
			return errors.Join(errs...)
		}
		undo := l.cleanups[last]
		l.cleanups = l.cleanups[:last]
		l.mu.Unlock()
		errs = append(errs, undo())
	}
}

// Prefix begins the name of everything that this process makes outside of a
// namespace, so that two test packages never meet and leftovers can be told.
func Prefix() string { return fmt.Sprintf("vg%d-", os.Getpid()) }
