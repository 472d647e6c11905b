package lab

import (
	"context"
	"errors"
	"fmt"
	"syscall"

	"github.com/vmgate/vmgate/internal/lab/control"
)

// Run runs a command line in the guest's shell (busybox) and returns its
// standard output and exit status; its standard error goes to the console. An
// error means that this could not be found out, never that the command
// failed. Output over 512 KiB is cut and reported as ErrTruncated. Commands
// left in the background must not keep the standard output open. When the
// context ends, the command is killed.
func (g *Guest) Run(ctx context.Context, command string) (stdout string, exit int, err error) {
	process, err := g.channel.request(control.Request{Op: control.Run, Args: []string{"/bin/sh", "-c", command}})
	if err == nil {
		_, err = process.Wait(ctx)
	}
	if err != nil {
		if process != nil {
			_ = process.Signal(syscall.SIGKILL)
		}
		return "", 0, fmt.Errorf("cannot run %q in guest %s: %w", command, g.name, err)
	}
	reply := process.reply()
	if reply.Truncated {
		return string(reply.Output), reply.Exit, fmt.Errorf("%q in guest %s: %w", command, g.name, ErrTruncated)
	}
	return string(reply.Output), reply.Exit, nil
}

// ErrTruncated says that a command wrote more than Run returns.
var ErrTruncated = errors.New("output was cut")

// Start starts the workload program in the guest as a process called name (its
// comm and the path /usr/bin/name of its executable), and returns when it has a
// pid. The arguments choose what it does, for instance "connect",
// "192.0.2.1:80".
func (g *Guest) Start(ctx context.Context, name string, args ...string) (*Process, error) {
	process, err := g.channel.request(control.Request{Op: control.Start, Name: name, Args: args})
	if err == nil {
		err = process.awaitStart(ctx)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot start %s %q in guest %s: %w", name, args, g.name, err)
	}
	return process, nil
}
