package snort

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const pidFile = "engine.pid"

// writePID records which process runs in dir: its pid and, since pids are used
// again, its start time.
func writePID(dir string, pid int) error {
	began, err := startTime(pid)
	if err != nil {
		return err
	}
	text := fmt.Sprintf("%d %s\n", pid, began)
	return os.WriteFile(filepath.Join(dir, pidFile), []byte(text), 0o600)
}

// Clear ends the engine that a killed daemon left running in dir (Config.Dir) and
// removes the directory. No daemon may be running there. What is not there is no
// error.
func Clear(dir string) error {
	_, err := endPrevious(dir)
	return errors.Join(err, os.RemoveAll(dir))
}

// endPrevious ends the engine that a killed daemon left behind in dir, and
// nothing else: pid, start time and the command line must agree, and the
// signals go to a pidfd that was opened before those were read.
func endPrevious(dir string) (pid int, err error) {
	text, err := os.ReadFile(filepath.Join(dir, pidFile))
	if errors.Is(err, os.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("cannot read the old engine's pid: %w", err)
	}
	var began string
	if _, err := fmt.Sscanf(string(text), "%d %s\n", &pid, &began); err != nil || pid <= 1 {
		return 0, nil // cut short by a crash, before the engine did anything
	}
	fd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return 0, nil
	}
	if err != nil {
		return 0, fmt.Errorf("cannot open the old engine, process %d: %w", pid, err)
	}
	defer unix.Close(fd)
	if now, err := startTime(pid); err != nil || now != began || !runsIn(pid, dir) {
		return 0, nil
	}
	for _, s := range []unix.Signal{unix.SIGTERM, unix.SIGKILL} {
		if err := unix.PidfdSendSignal(fd, s, nil, 0); errors.Is(err, unix.ESRCH) {
			return pid, nil
		}
		if gone(fd, stopLimit) {
			return pid, nil
		}
	}
	return pid, fmt.Errorf("cannot end the old engine, process %d: end it by hand", pid)
}

// gone waits for the end of the pidfd's process.
func gone(fd int, limit time.Duration) bool {
	deadline := time.Now().Add(limit)
	for {
		left := time.Until(deadline)
		if left <= 0 {
			return false
		}
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(left.Milliseconds())+1)
		if err == nil && n == 1 {
			return true
		}
		if err != nil && !errors.Is(err, unix.EINTR) {
			return false
		}
	}
}

// runsIn says whether a file in dir is named on the process's command line.
func runsIn(pid int, dir string) bool {
	cmdline, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil {
		return false
	}
	for arg := range bytes.SplitSeq(cmdline, []byte{0}) {
		if strings.HasPrefix(string(arg), dir+"/") {
			return true
		}
	}
	return false
}

// startTime is field 22 of /proc/PID/stat, clock ticks since boot. The second
// field, the name, may contain spaces and parentheses itself: see proc(5).
func startTime(pid int) (string, error) {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return "", fmt.Errorf("cannot read the start time of process %d: %w", pid, err)
	}
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	if len(fields) < 20 {
		return "", fmt.Errorf("cannot read the start time of process %d: short line", pid)
	}
	return fields[19], nil
}
