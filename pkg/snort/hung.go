package snort

import "golang.org/x/sys/unix"

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
