package snort

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// stopLimit bounds a clean stop (1.4 to 2.5 s were seen), after which the
// engine is killed.
const stopLimit = 8 * time.Second

// process is a running engine. It deliberately has no parent-death signal: that
// one comes with the end of the *thread* that started it, and an engine that
// goes on after the daemon was killed keeps inspecting the flows that are
// already decided. The next Run ends it, by its pid file.
type process struct {
	cmd    *exec.Cmd
	exited chan struct{} // closed when it is gone and all its output was read
	err    error         // how it ended; valid once exited is closed
	why    string        // set by Engine.Kill; under its lock
	said   *console      // what it printed; nil for one that only checks
}

// program is what is to be run, and how.
type program struct {
	binary   string
	args     []string
	netNS    string // path; empty: the caller's
	user     account
	caps     []uintptr // that it has
	terminal bool      // it prints to one, line by line
}

// start runs a program, confined. Everything that it prints goes to console, from
// one goroutine that ends before exited is closed.
func start(what program, console io.Writer) (*process, error) {
	p := &process{cmd: exec.Command(what.binary, what.args...), exited: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = console, console
	var tty terminal
	if what.terminal {
		var err error
		if tty, err = newTerminal(); err != nil {
			return nil, err
		}
		p.cmd.Stdout, p.cmd.Stderr = tty.slave, tty.slave
	}
	p.cmd.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C", "TZ=UTC"}
	p.cmd.Dir = "/"
	p.cmd.WaitDelay = time.Second // for a pipe that a grandchild holds open
	p.cmd.SysProcAttr = &unix.SysProcAttr{
		Setpgid:     true, // a terminal's ^C is for the daemon
		Credential:  what.user.credential(),
		AmbientCaps: what.caps,
	}
	err := onThread(func() error {
		if err := enterNetNS(what.netNS); err != nil {
			return err
		}
		if err := confine(what.caps); err != nil {
			return err
		}
		return p.cmd.Start()
	})
	if err != nil {
		tty.close()
		return nil, fmt.Errorf("cannot start %s: %w", what.binary, err)
	}
	heard := make(chan struct{})
	go func() {
		defer close(heard)
		if what.terminal {
			tty.slave.Close() // the engine has its own
			_ = tty.copyTo(console)
		}
	}()
	go func() {
		p.err = p.cmd.Wait()
		p.hear(heard, tty)
		close(p.exited)
	}()
	return p, nil
}

// hear waits for the last words of an engine that has ended, not for those of a
// grandchild that holds the terminal open.
func (p *process) hear(heard <-chan struct{}, tty terminal) {
	select {
	case <-heard:
	case <-time.After(p.cmd.WaitDelay):
		tty.master.Close()
		<-heard
	}
}

func (p *process) pid() int { return p.cmd.Process.Pid }

// stop ends the process: politely, and after the limit not. It returns when it
// is gone.
func (p *process) stop(limit time.Duration) {
	p.signal(unix.SIGTERM)
	select {
	case <-p.exited:
		return
	case <-time.After(limit):
	}
	p.signal(unix.SIGKILL)
	<-p.exited
}

// signal is without an error: the only one is that the process is gone, which
// exited tells.
func (p *process) signal(s unix.Signal) { _ = p.cmd.Process.Signal(s) }

// ended says how the process ended, for people.
func (p *process) ended() error {
	if p.err == nil {
		return errors.New("the engine ended by itself")
	}
	return fmt.Errorf("the engine ended: %w", p.err)
}

// output runs a program to its end and returns what it printed, at most limit bytes.
func output(ctx context.Context, what program, limit int) (string, error) {
	var out capped
	out.limit = limit
	p, err := start(what, &out)
	if err != nil {
		return "", err
	}
	select {
	case <-p.exited:
	case <-ctx.Done():
		p.signal(unix.SIGKILL)
		<-p.exited
		return out.String(), ctx.Err()
	}
	return out.String(), p.err
}

// capped keeps the first bytes of what is written to it.
type capped struct {
	strings.Builder
	limit int
}

// Write never fails, so that the writer is never held up.
func (c *capped) Write(p []byte) (int, error) {
	c.Builder.Write(p[:min(len(p), c.limit-c.Len())])
	return len(p), nil
}

// attached says whether the process's namespace has a running packet socket on
// each of the two interfaces. Table: net/packet/af_packet.c, packet_seq_show.
func attached(pid int, indexes [2]int) bool {
	table, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/packet", pid))
	if err != nil {
		return false
	}
	var found [2]bool
	for line := range strings.Lines(string(table)) {
		f := strings.Fields(line) // sk RefCnt Type Proto Iface R Rmem User Inode
		if len(f) < 9 || f[5] != "1" {
			continue
		}
		for i, index := range indexes {
			found[i] = found[i] || f[4] == strconv.Itoa(index)
		}
	}
	return found[0] && found[1]
}
