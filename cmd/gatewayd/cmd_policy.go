package main

import (
	"context"

	"github.com/urfave/cli/v2"

	"github.com/vmgate/vmgate/internal/api"
)

func cmdPolicy() *cli.Command {
	show := func(c *cli.Context) error {
		return showFrom(c, daemonOf(c).Policy, printPolicy)
	}
	return &cli.Command{
		Name:   "policy",
		Usage:  "show the policy in force; try and apply another configuration",
		Action: show,
		Subcommands: []*cli.Command{
			{Name: "show", Usage: "show the rules in their order (also without the word show)", Action: show},
			{
				Name:      "check",
				Usage:     "let the daemon check a whole configuration and say what it would change",
				ArgsUsage: "FILE",
				Action: func(c *cli.Context) error {
					return sendConfig(c, daemonOf(c).CheckConfig)
				},
			},
			{
				Name:      "apply",
				Usage:     "replace the daemon's configuration file by FILE and put it in force, or change nothing",
				ArgsUsage: "FILE",
				Action: func(c *cli.Context) error {
					return sendConfig(c, daemonOf(c).ApplyConfig)
				},
			},
		},
	}
}

func printPolicy(t *table, p api.Policy) {
	t.row("LINE", "RULE", "MATCH", "ACTION", "ALERT", "FLOWS")
	for _, r := range p.Rules {
		t.row(number(r.Line), r.Name, r.Match, r.Action, yes(r.Alert), r.Flows)
	}
	t.row("", "default", "everything else", p.Default, "", "")
}

func sendConfig(c *cli.Context, send func(context.Context, []byte) (api.Changes, error)) error {
	if err := wantArgs(c, 1); err != nil {
		return err
	}
	text, err := readFile(c, c.Args().First())
	if err != nil {
		return err
	}
	changes, err := send(c.Context, text)
	if err != nil {
		return err
	}
	return show(c, changes, func(t *table) { printChanges(t, changes) })
}
