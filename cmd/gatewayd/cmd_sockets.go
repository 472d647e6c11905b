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
	t.row("PROTO", "LOCAL", "REMOTE", "STATE", "NETNS", "HIDDEN", "PIDS")
	for _, s := range sockets {
		proto := api.ProtoName(s.Proto)
		if s.Family == "packet" || s.Family == "xdp" {
			proto = s.Family
		}
		t.row(proto, addrPort(s.Local), addrPort(s.Remote), s.State, number(s.NetNS), yes(s.Unlisted), pids(s.PIDs))
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
