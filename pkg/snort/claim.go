package snort

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// claim takes the directory: makes it, keeps other daemons out of it, ends what
// a killed one left running, and empties it. Release gives it back, empty.
func (e *Engine) claim() (release func(), err error) {
	dir := e.cfg.Dir
	if err := os.MkdirAll(dir, 0o711); err != nil {
		return nil, fmt.Errorf("cannot make its directory: %w", err)
	}
	lock, err := os.Open(dir) // the lock is on the directory itself, so it leaves no file
	if err != nil {
		return nil, fmt.Errorf("cannot lock its directory: %w", err)
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		lock.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("%s is in use by another daemon", dir)
		}
		return nil, fmt.Errorf("cannot lock %s: %w", dir, err)
	}
	pid, err := endPrevious(dir)
	if err != nil {
		lock.Close()
		return nil, err
	}
	if pid != 0 {
		e.cfg.Log.Warn("ended the engine that an earlier daemon left behind", "pid", pid)
	}
	removeFiles(dir, append(e.drv.files(), pidFile, rulesDir, outDir, "check-*"))
	if err := e.user.makeDir(dir); err != nil {
		lock.Close()
		return nil, fmt.Errorf("cannot make its directory: %w", err)
	}
	return func() {
		removeFiles(dir, append(e.drv.files(), pidFile, rulesDir, outDir))
		lock.Close()
		_ = os.Remove(dir) // kept if someone else put something there
	}, nil
}

// setRunning tells Reload whether there is a claimed directory.
func (e *Engine) setRunning(is bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.isRunning = is
}
