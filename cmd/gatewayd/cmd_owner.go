package main

import (
	"strconv"

	"github.com/urfave/cli/v2"

	"github.com/vmgate/vmgate/internal/api"
)

func cmdOwner() *cli.Command {
	return &cli.Command{
		Name:         "owner",
		Usage:        "say which process of a VM holds a port, read from its memory",
		ArgsUsage:    "VM PROTO PORT",
		BashComplete: completeVM,
		Action: func(c *cli.Context) error {
			if err := wantArgs(c, 3); err != nil {
				return err
			}
			number, err := strconv.ParseUint(c.Args().Get(2), 10, 16)
			if err != nil {
				return usageErrorf("%q is no port", c.Args().Get(2))
			}
			port := api.Port{VM: c.Args().First(), Proto: c.Args().Get(1), Port: uint16(number)}
			answer, err := daemonOf(c).Owner(c.Context, port)
			if err != nil {
				return err
			}
			return show(c, answer, func(t *table) { printGuestProcesses(t, answer.Owners) })
		},
	}
}
