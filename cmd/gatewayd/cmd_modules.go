package main

import (
	"fmt"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/vmgate/vmgate/pkg/vmi"
)

func cmdModules() *cli.Command {
	return &cli.Command{
		Name:         "modules",
		Usage:        "list a VM's kernel modules, hidden ones too",
		ArgsUsage:    "VM",
		BashComplete: completeVM,
		Action: func(c *cli.Context) error {
			return showOfVM(c, daemonOf(c).Modules, printModules)
		},
	}
}

func printModules(t *table, modules []vmi.Module) {
	t.row("NAME", "STATE", "TEXT", "BYTES", "HIDDEN", "VIEWS")
	for _, m := range modules {
		t.row(m.Name, m.State, fmt.Sprintf("%#x", m.Base), m.Size, yes(m.Hidden), strings.Join(m.Views, ","))
	}
}
