package main

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"

	"github.com/urfave/cli/v2"

	"github.com/vmgate/vmgate/internal/api"
	"github.com/vmgate/vmgate/pkg/verdict"
)

func cmdFlows() *cli.Command {
	return &cli.Command{
		Name:  "flows",
		Usage: "list the decided flows with their owners, the rule, and the verdict that stands now",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "vm", Usage: "only flows from or to `VM`"},
			&cli.StringFlag{Name: "verdict", Usage: "only flows whose verdict is `VERDICT`"},
		},
		Action: func(c *cli.Context) error {
			if v := c.String("verdict"); v != "" {
				if _, err := verdict.ParseVerdict(v); err != nil {
					return usageError{err}
				}
			}
			return showFrom(c, func(ctx context.Context) ([]api.Flow, error) {
				flows, err := daemonOf(c).Flows(ctx)
				return slices.DeleteFunc(flows, func(f api.Flow) bool { return !wanted(c, f) }), err
			}, printFlows)
		},
	}
}

func wanted(c *cli.Context, f api.Flow) bool {
	vm, v := c.String("vm"), c.String("verdict")
	return (vm == "" || vm == f.Src.VM || vm == f.Dst.VM) && (v == "" || v == f.Verdict)
}

func printFlows(t *table, flows []api.Flow) {
	t.row("PROTO", "VLAN", "SOURCE", "OWNER", "DESTINATION", "OWNER", "VERDICT", "CAUSE", "RULE", "PACKETS", "BYTES", "AGE", "IDLE")
	for _, f := range flows {
		t.row(f.Proto, f.VLAN, hostPort(f.Src.Addr, f.Src.Port), owner(f.Src.VM, f.Src.Process),
			hostPort(f.Dst.Addr, f.Dst.Port), owner(f.Dst.VM, f.Dst.Process), f.Verdict, f.Cause, f.Rule,
			fmt.Sprintf("%d/%d", f.Src.Packets, f.Dst.Packets), fmt.Sprintf("%d/%d", f.Src.Bytes, f.Dst.Bytes),
			span(f.Age), span(f.Idle))
	}
}

// hostPort writes an address with its port, if it has one, and IPv6 in brackets.
func hostPort(addr string, port uint16) string {
	if port == 0 {
		if a, err := netip.ParseAddr(addr); err == nil && a.Is6() {
			return "[" + addr + "]"
		}
		return addr
	}
	return net.JoinHostPort(addr, strconv.Itoa(int(port)))
}

// owner writes VM and process as vm/name[pid].
func owner(vm string, p *verdict.Process) string {
	if p == nil {
		return vm
	}
	return fmt.Sprintf("%s/%s[%d]", vm, p.Name, p.PID)
}
