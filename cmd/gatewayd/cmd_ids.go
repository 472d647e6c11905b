package main

import (
	"fmt"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/vmgate/vmgate/internal/api"
)

func cmdIDS() *cli.Command {
	status := func(c *cli.Context) error { return showFrom(c, daemonOf(c).IDS, printIDS) }
	return &cli.Command{
		Name:   "ids",
		Usage:  "show the inline IDS, and have it read its rules",
		Action: status,
		Subcommands: []*cli.Command{
			{Name: "status", Usage: "show how the engine does (also without the word status)", Action: status},
			{
				Name:        "reload",
				Usage:       "let the engine take over the rule files as they are now, without losing a packet",
				Description: "If the engine does not take them, its message is shown, the rules in force stay, and the exit code is 5.",
				Action: func(c *cli.Context) error {
					if err := daemonOf(c).ReloadIDS(c.Context); err != nil {
						return err
					}
					return confirm(c, map[string]string{"rules": "reloaded"}, "the rules are in force")
				},
			},
			{
				Name:        "test",
				Usage:       "have the engine read the rule files as they are now, without taking them over",
				Description: "If the engine does not take them, its message is shown and the exit code is 5.",
				Action: func(c *cli.Context) error {
					if err := daemonOf(c).TestIDS(c.Context); err != nil {
						return err
					}
					return confirm(c, map[string]string{"rules": "good"}, "the engine takes the rules")
				},
			},
		},
	}
}

func printIDS(t *table, ids api.IDS) {
	t.row("engine", idsLine(ids.IDSStatus))
	t.field("version", ids.Version)
	t.row("rules", fmt.Sprintf("%d loaded", ids.Rules))
	for _, file := range ids.RuleFiles {
		t.row("", file)
	}
	t.field("last refused", ids.Refused)
	t.row("packets", fmt.Sprintf("%d in, %d out, %d dropped or on their way", ids.PacketsIn, ids.PacketsOut, ids.NotBack))
	t.blank()
	t.row("ENGINE", "STATE", "PID", "RESTARTS", "CANARY", "HEARTBEAT", "LINES", "MALFORMED", "REPEATED", "LOST", "LAST NOT UP")
	for i, e := range ids.Engines {
		t.row(i, e.State, number(e.PID), e.Restarts, ago(e.CanaryAge), ago(e.AlertAge), e.Lines, e.Malformed, e.Repeated, e.Lost, e.LastReason)
	}
}

func ago(d time.Duration) string {
	if d < 0 {
		return "none yet"
	}
	return span(d) + " ago"
}
