package snort

import (
	"io"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestProcess_StubbornOneIsKilled(t *testing.T) {
	ready, told := io.Pipe()
	p, err := start(program{binary: "/bin/sh", args: []string{"-c", "trap '' TERM; echo ready; while :; do sleep 0.05; done"}}, told)
	must(t, err)
	_, err = io.ReadAtLeast(ready, make([]byte, 6), 6) // else the trap is not yet set
	must(t, err)
	p.stop(100 * time.Millisecond)
	if err := p.ended(); !strings.Contains(err.Error(), "killed") {
		t.Errorf("ended: %v", err)
	}
	if err := unix.Kill(p.pid(), 0); err != unix.ESRCH {
		t.Errorf("it is still there: %v", err)
	}
}
