package main

import (
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/vmgate/vmgate/internal/api"
	"github.com/vmgate/vmgate/pkg/vmi"
)

func cmdPs() *cli.Command {
	return &cli.Command{
		Name:         "ps",
		Usage:        "list the processes of a VM, read from its memory, hidden ones too, with their verdicts",
		ArgsUsage:    "VM",
		BashComplete: completeVM,
		Action: func(c *cli.Context) error {
			return showOfVM(c, daemonOf(c).Processes, printProcesses)
		},
	}
}

func printProcesses(t *table, processes []api.Process) {
	t.row("PID", "PPID", "UID", "HIDDEN", "VERDICT", "CAUSE", "VIEWS", "NAME", "COMMAND")
	for _, p := range processes {
		t.row(p.PID, p.PPID, p.UID, yes(p.Hidden), p.Verdict, p.Cause, strings.Join(p.Views, ","), p.Name, command(p.Process))
	}
}

// command is what the process runs: its arguments, or its path where those
// cannot be read, or its name in brackets for a kernel thread, as ps does.
func command(p vmi.Process) string {
	switch {
	case p.Kernel:
		return "[" + p.Name + "]"
	case len(p.Args) > 0:
		return strings.Join(p.Args, " ")
	}
	return p.Path
}
