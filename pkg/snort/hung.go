package snort

import (
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// Kill ends the running process pid at once and says why in the state: it is for
// an engine that is there and does not work, which would not heed a polite word.
// Run starts another. A pid that is not (any more) the engine's is left alone.
func (e *Engine) Kill(pid int, why string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.proc == nil || e.proc.pid() != pid {
		return
	}
	e.proc.why = why
	e.proc.signal(unix.SIGKILL)
}

// Busy is how long the threads of the running process pid have worked or waited
// for a processor so far, all together. It tells an engine that has too much to do,
// or gets too little time for it, from one that does nothing.
func (e *Engine) Busy(pid int) (time.Duration, error) {
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	if err == nil && len(threads) == 0 {
		err = fmt.Errorf("process %d is gone, or the kernel has no CONFIG_SCHED_INFO", pid)
	}
	var sum time.Duration
	for _, path := range threads {
		text, err := os.ReadFile(path)
		if err != nil {
			continue // the thread has ended
		}
		// Nanoseconds run and waited, and a count: kernel, Documentation/scheduler/sched-stats.
		var ran, waited time.Duration
		if _, err := fmt.Sscan(string(text), &ran, &waited); err == nil {
			sum += ran + waited
		}
	}
	if err != nil {
		return 0, fmt.Errorf("cannot tell how busy the IDS engine is: %w", err)
	}
	return sum, nil
}
