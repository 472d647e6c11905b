package main

import (
	"github.com/urfave/cli/v2"

	"github.com/vmgate/vmgate/pkg/vmi"
)

func cmdFindings() *cli.Command {
	return &cli.Command{
		Name:         "findings",
		Usage:        "say what in a VM does not fit together: hidden processes and modules, hooks, what could not be looked at",
		ArgsUsage:    "VM",
		BashComplete: completeVM,
		Action: func(c *cli.Context) error {
			return showOfVM(c, daemonOf(c).Findings, printFindings)
		},
	}
}

func printFindings(t *table, findings []vmi.Finding) {
	t.row("SEVERITY", "KIND", "SUBJECT", "EVIDENCE")
	for _, f := range findings {
		t.row(f.Severity, f.Kind, f.Subject, f.Evidence)
	}
}
