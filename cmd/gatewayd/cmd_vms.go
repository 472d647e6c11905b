package main

import (
	"fmt"
	"slices"
	"strings"
	"time"

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

// addressesOf lists a VM's addresses, those that were learned with where from.
func addressesOf(vm api.VM) []string {
	addrs := slices.Clone(vm.Addresses)
	for _, l := range vm.Learned {
		note := " (claimed)"
		if l.Until != nil {
			note = fmt.Sprintf(" (%s until %s)", l.Server, l.Until.Local().Format(time.DateTime))
		}
		if i := slices.Index(addrs, l.Address); i >= 0 {
			addrs[i] += note
		}
	}
	return addrs
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
		t.row(vm.ID, vm.Name, vm.Segment, strings.Join(vm.MACs, ","), strings.Join(addressesOf(vm), ","),
			memory, vm.Verdict, vm.Cause, vm.Flows, detail)
	}
}
