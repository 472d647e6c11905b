package main

import (
	"strconv"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/vmgate/vmgate/internal/api"
	"github.com/vmgate/vmgate/pkg/verdict"
)

func cmdVerdicts() *cli.Command {
	list := func(c *cli.Context) error {
		return showFrom(c, daemonOf(c).Verdicts, printVerdicts)
	}
	return &cli.Command{
		Name:   "verdicts",
		Usage:  "show and change the verdicts that stand on ports of VMs",
		Action: list,
		Subcommands: []*cli.Command{
			{Name: "list", Usage: "list the verdicts (also without the word list)", Action: list},
			{
				Name:         "set",
				Usage:        "set the verdict of a port by hand",
				ArgsUsage:    "VM PROTO PORT VERDICT",
				Flags:        []cli.Flag{&cli.DurationFlag{Name: "for", Usage: "stands for `DURATION`, for example 10m", DefaultText: "until deleted"}},
				BashComplete: completeVM,
				Action:       setVerdict,
			},
			{
				Name:         "delete",
				Usage:        "lift the verdict of a port",
				ArgsUsage:    "VM PROTO PORT",
				BashComplete: completeVM,
				Action:       deleteVerdict,
			},
		},
	}
}

func printVerdicts(t *table, verdicts []api.PortVerdict) {
	t.row("VM", "PROTO", "PORT", "VERDICT", "CAUSE", "OWNER", "OBSERVED", "EXPIRES")
	for _, v := range verdicts {
		var expires time.Time
		if v.Expires != nil {
			expires = *v.Expires
		}
		process := ""
		if v.Owner != nil {
			process = owner(v.Owner.VM, v.Owner)
		}
		t.row(v.VM, v.Proto, v.Port.Port, v.Verdict, v.Cause, process, clock(v.Observed), clock(expires))
	}
}

func setVerdict(c *cli.Context) error {
	if err := wantArgs(c, 4); err != nil {
		return err
	}
	port, err := parsePort(c)
	if err != nil {
		return err
	}
	change := api.VerdictChange{Port: port, Verdict: c.Args().Get(3), For: c.Duration("for")}
	if _, err := verdict.ParseVerdict(change.Verdict); err != nil {
		return usageError{err}
	}
	if c.IsSet("for") && change.For <= 0 {
		return usageErrorf("--for %v is no time to come", change.For)
	}
	if err := daemonOf(c).SetVerdict(c.Context, change); err != nil {
		return err
	}
	return confirm(c, change, "%s of %s %s/%d", change.Verdict, port.VM, port.Proto, port.Port)
}

func deleteVerdict(c *cli.Context) error {
	if err := wantArgs(c, 3); err != nil {
		return err
	}
	port, err := parsePort(c)
	if err != nil {
		return err
	}
	if err := daemonOf(c).DeleteVerdict(c.Context, port); err != nil {
		return err
	}
	return confirm(c, port, "no verdict of %s %s/%d any more", port.VM, port.Proto, port.Port)
}

// parsePort reads the first three arguments.
func parsePort(c *cli.Context) (api.Port, error) {
	proto, err := api.ParseProto(c.Args().Get(1))
	if err != nil {
		return api.Port{}, usageError{err}
	}
	port, err := strconv.ParseUint(c.Args().Get(2), 10, 16)
	if err != nil {
		return api.Port{}, usageErrorf("%q is no port: want a number below 65536", c.Args().Get(2))
	}
	return api.Port{VM: c.Args().First(), Proto: api.ProtoName(proto), Port: uint16(port)}, nil
}
