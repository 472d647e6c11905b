// Package daemon runs the real gatewayd in a namespace of a lab, for the tests, the
// benchmarks and the demonstration. It is told where its files are and writes none
// but the daemon's log: the configuration is the caller's.
package daemon

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"time"

	"github.com/vmgate/vmgate/internal/api"
	"github.com/vmgate/vmgate/internal/lab"
)

// grace is how long a daemon may take to end in good order.
const grace = 20 * time.Second

// Daemon is a place for gatewayd to run in, again and again: a directory, pins, a
// namespace. Its methods but Ended and Client's are not for concurrent use.
type Daemon struct {
	Dir    string      // of its files; short, for there are sockets in it
	Config string      // the path of its configuration, in Dir
	Pins   string      // its directory in bpffs
	Client *api.Client // speaks to Dir/run/gatewayd.sock

	program string
	ns      *lab.Namespace
	command *exec.Cmd
	ended   chan struct{} // closed when the last one started has ended; nil before
}

// Build compiles gatewayd into dir and returns the path of the program.
func Build(ctx context.Context, dir string) (string, error) {
	program := filepath.Join(dir, "gatewayd")
	out, err := exec.CommandContext(ctx, "go", "build", "-trimpath", "-o", program, "github.com/vmgate/vmgate/cmd/gatewayd").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("cannot build gatewayd: %w: %s", err, out)
	}
	return program, nil
}

// New makes the directory. No daemon runs yet. Close ends what was started and
// removes everything.
func New(ns *lab.Namespace, program string) (*Daemon, error) {
	dir, err := os.MkdirTemp("", lab.Prefix()) // the lab sweeps what bears it, pins too
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(dir, 0o711); err != nil { // the IDS engine's user goes through it
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	return &Daemon{
		Dir: dir, Config: filepath.Join(dir, "gateway.yaml"), Pins: filepath.Join("/sys/fs/bpf", filepath.Base(dir)),
		Client:  api.NewClient(filepath.Join(dir, "run", "gatewayd.sock")),
		program: program, ns: ns,
	}, nil
}

// File returns the path of a file in the daemon's directory.
func (d *Daemon) File(name string) string { return filepath.Join(d.Dir, name) }

// Socket returns the path of the daemon's socket, where the configuration puts run
// at Dir/run.
func (d *Daemon) Socket() string { return d.File("run/gatewayd.sock") }

// Start runs gatewayd with the configuration. It is not up yet then: see Await.
func (d *Daemon) Start() error {
	log, err := os.OpenFile(d.File("gatewayd.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close() // the daemon has its own descriptor
	// Not bound to a context: it is to be stopped in good order.
	command := d.ns.Command(context.Background(), d.program, "run", "--config", d.Config)
	command.Stdout, command.Stderr = log, log
	started, ended := make(chan error, 1), make(chan struct{})
	go func() {
		// On a thread that stays until then: the kernel kills the daemon when the
		// thread ends that forked it, not when this process does (PR_SET_PDEATHSIG).
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := command.Start()
		started <- err
		if err == nil {
			_ = command.Wait() // its log tells how it went
			close(ended)
		}
	}()
	if err := <-started; err != nil {
		return fmt.Errorf("cannot start %s: %w", d.program, err)
	}
	d.command, d.ended = command, ended
	return nil
}

// PID returns the process number of the daemon that was started last.
func (d *Daemon) PID() int { return d.command.Process.Pid }

// Ended is closed when the daemon that was started last has ended; nil before.
func (d *Daemon) Ended() <-chan struct{} { return d.ended }

// HasEnded says whether no daemon runs.
func (d *Daemon) HasEnded() bool {
	select {
	case <-d.ended:
		return true
	default:
		return d.ended == nil
	}
}

// Await polls the daemon that was started last until it answers, all its segments
// are attached, its engine is up if it has one, and ready, if not nil, says so too.
func (d *Daemon) Await(ctx context.Context, ready func(api.Status) bool) error {
	for {
		status, err := d.Client.Status(ctx)
		if err == nil && status.PID == d.PID() && isUp(status) && (ready == nil || ready(status)) {
			return nil
		}
		select {
		case <-d.ended:
			return fmt.Errorf("gatewayd has ended; it said:\n%s", d.Log())
		case <-ctx.Done():
			return fmt.Errorf("gatewayd did not come up: %w; it said:\n%s", context.Cause(ctx), d.Log())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func isUp(status api.Status) bool {
	for _, s := range status.Segments {
		if s.State != "attached" {
			return false
		}
	}
	return status.IDS.Engine == "" || status.IDS.State == "up"
}

// Signal sends a signal to the daemon.
func (d *Daemon) Signal(signal syscall.Signal) error { return d.command.Process.Signal(signal) }

// Stop ends the daemon with a signal, if it runs, and waits for it. One that does
// not end is killed, and an error.
func (d *Daemon) Stop(signal syscall.Signal) error {
	if d.HasEnded() {
		return nil
	}
	_ = d.Signal(signal) // it may have ended at this moment
	select {
	case <-d.ended:
		return nil
	case <-time.After(grace):
		_ = d.Signal(syscall.SIGKILL)
		<-d.ended
		return fmt.Errorf("gatewayd does not end by %v", signal)
	}
}

// Run runs one verb of gatewayd in the namespace to its end; what it writes to
// standard output and error, and its exit status.
func (d *Daemon) Run(ctx context.Context, args ...string) (out string, exit int, err error) {
	command := d.ns.Command(ctx, d.program, args...)
	b, err := command.CombinedOutput()
	if command.ProcessState == nil {
		return "", 0, fmt.Errorf("cannot run gatewayd %q: %w", args, err)
	}
	return string(b), command.ProcessState.ExitCode(), nil
}

// Log returns the end of what the daemons said.
func (d *Daemon) Log() string {
	b, _ := os.ReadFile(d.File("gatewayd.log")) // there is none before the first
	b = bytes.TrimSpace(b)
	return string(b[max(0, len(b)-8192):])
}

// Close stops the daemon, takes what it left out of the kernel and removes the
// directory.
func (d *Daemon) Close() error {
	return errors.Join(d.Stop(syscall.SIGTERM), d.teardown(), os.RemoveAll(d.Dir))
}

func (d *Daemon) teardown() error {
	if d.command == nil {
		return nil // none ever ran
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	out, exit, err := d.Run(ctx, "teardown", "--config", d.Config)
	if err == nil && exit != 0 {
		err = fmt.Errorf("cannot tear the gateway down: status %d: %s", exit, out)
	}
	return err
}
