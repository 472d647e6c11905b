package main

import (
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/vmgate/vmgate/internal/api"
)

func cmdVMs() *cli.Command {
	return &cli.Command{
		Name:  "vms",
		Usage: "list the VMs and routers of the inventory with their state and verdict",
		Action: func(c *cli.Context) error {
			return showFrom(c, daemonOf(c).VMs, printVMs)
		},
	}
}

func printVMs(t *table, vms []api.VM) {
	t.row("ID", "NAME", "SEGMENT", "MACS", "ADDRESSES", "MEMORY", "VERDICT", "CAUSE", "FLOWS", "DETAIL")
	for _, vm := range vms {
		memory := vm.Memory
		if vm.Router {
			memory = "router"
		}
		detail := vm.Detail
		if detail == "" {
			detail = vm.OS
		}
		t.row(vm.ID, vm.Name, vm.Segment, strings.Join(vm.MACs, ","), strings.Join(vm.Addresses, ","),
			memory, vm.Verdict, vm.Cause, vm.Flows, detail)
	}
}
