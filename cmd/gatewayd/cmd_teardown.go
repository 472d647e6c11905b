package main

import (
	"github.com/urfave/cli/v2"

	"github.com/vmgate/vmgate/internal/app"
)

func cmdTeardown() *cli.Command {
	return &cli.Command{
		Name:  "teardown",
		Usage: "detach everything that a daemon left in the kernel: programs, maps, bridge, firewall rules",
		Description: "Enforcement outlives the daemon on purpose; this ends it, and the segments are cut off from each other.\n" +
			"The daemon must not be running.",
		Flags: daemonFlags(),
		Action: func(c *cli.Context) error {
			if err := wantArgs(c, 0); err != nil {
				return err
			}
			log, err := newLogger(c.App.ErrWriter, "info", "text")
			if err != nil {
				return err
			}
			_, options, err := daemonOptions(c, log)
			if err != nil {
				return err
			}
			if err := app.Teardown(options); err != nil {
				return err
			}
			return confirm(c, map[string]string{"config": options.ConfigPath}, "nothing of %s is left in the kernel", options.ConfigPath)
		},
	}
}
