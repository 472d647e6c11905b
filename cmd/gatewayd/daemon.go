package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/vmgate/vmgate/internal/api"
)

// daemonOf is the client of the daemon that the command line names.
func daemonOf(c *cli.Context) *api.Client { return api.NewClient(c.String("socket")) }

// showFrom asks the daemon for something that needs no arguments, and shows it.
func showFrom[T any](c *cli.Context, ask func(context.Context) (T, error), people func(*table, T)) error {
	if err := wantArgs(c, 0); err != nil {
		return err
	}
	answer, err := ask(c.Context)
	if err != nil {
		return err
	}
	return show(c, answer, func(t *table) { people(t, answer) })
}

// showOfVM does the same for something that is asked of the VM in the only argument.
func showOfVM[T any](c *cli.Context, ask func(context.Context, string) (T, error), people func(*table, T)) error {
	if err := wantArgs(c, 1); err != nil {
		return err
	}
	answer, err := ask(c.Context, c.Args().First())
	if err != nil {
		return err
	}
	return show(c, answer, func(t *table) { people(t, answer) })
}

// confirm says that something was done: in words for people, as what was done
// for programs.
func confirm(c *cli.Context, done any, format string, args ...any) error {
	if wantsJSON(c) {
		return show(c, done, nil)
	}
	_, err := fmt.Fprintln(c.App.Writer, printable(fmt.Sprintf(format, args...)))
	return err
}

// maxFile bounds what is read from a file that a command line names; the daemon
// takes no more.
const maxFile = 4 << 20

// readFile reads a file or, for "-", the standard input.
func readFile(c *cli.Context, name string) ([]byte, error) {
	in := c.App.Reader
	if name != "-" {
		f, err := os.Open(name)
		if err != nil {
			return nil, invalidInput{fmt.Errorf("cannot read the file: %w", err)}
		}
		defer f.Close()
		in = f
	}
	b, err := io.ReadAll(io.LimitReader(in, maxFile+1))
	if err != nil {
		return nil, invalidInput{fmt.Errorf("cannot read %s: %w", name, err)}
	}
	if len(b) > maxFile {
		return nil, invalidInput{fmt.Errorf("%s is larger than %d MiB, and the daemon takes no more", name, maxFile>>20)}
	}
	return b, nil
}

// completeVM completes the first argument with the ids of the VMs, if a daemon
// answers soon.
func completeVM(c *cli.Context) {
	cli.DefaultCompleteWithFlags(c.Command)(c)
	if c.NArg() > 0 {
		return
	}
	ctx, cancel := context.WithTimeout(c.Context, time.Second)
	defer cancel()
	vms, err := daemonOf(c).VMs(ctx)
	if err != nil {
		return // a completion has nowhere to complain
	}
	for _, vm := range vms {
		fmt.Fprintln(c.App.Writer, printable(vm.ID))
	}
}
