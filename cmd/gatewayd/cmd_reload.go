package main

import (
	"github.com/urfave/cli/v2"

	"github.com/vmgate/vmgate/internal/api"
)

func cmdReload() *cli.Command {
	return &cli.Command{
		Name:        "reload",
		Usage:       "let the daemon read its configuration file again",
		Description: "Prints what has changed. If the file is wrong, the configuration in force stays, and the exit code is 5.",
		Action: func(c *cli.Context) error {
			return showFrom(c, daemonOf(c).Reload, printChanges)
		},
	}
}

func printChanges(t *table, changes api.Changes) {
	if len(changes.Lines) == 0 {
		t.row("nothing changes")
	}
	for _, line := range changes.Lines {
		t.row(line)
	}
}
