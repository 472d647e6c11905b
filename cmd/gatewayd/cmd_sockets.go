package main

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/vmgate/vmgate/internal/api"
	"github.com/vmgate/vmgate/pkg/vmi"
)

func cmdSockets() *cli.Command {
	return &cli.Command{
		Name:         "sockets",
		Usage:        "list the sockets of a VM and the processes that hold them, read from its memory",
		ArgsUsage:    "VM",
		BashComplete: completeVM,
		Action: func(c *cli.Context) error {
			return showOfVM(c, daemonOf(c).Sockets, printSockets)
		},
	}
}

func printSockets(t *table, sockets []vmi.Socket) {
	t.row("PROTO", "LOCAL", "REMOTE", "STATE", "PIDS")
	for _, s := range sockets {
		t.row(api.ProtoName(s.Proto), addrPort(s.Local), addrPort(s.Remote), s.State, pids(s.PIDs))
	}
}

func addrPort(a netip.AddrPort) string {
	if !a.IsValid() {
		return ""
	}
	return a.String()
}

func pids(list []uint32) string {
	return strings.Trim(strings.Join(strings.Fields(fmt.Sprint(list)), ","), "[]")
}
