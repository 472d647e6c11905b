package main

import (
	"time"

	"github.com/urfave/cli/v2"

	"github.com/vmgate/vmgate/internal/api"
)

func cmdReport() *cli.Command {
	return &cli.Command{
		Name:      "report",
		Usage:     "say that a VM, a process of it, a file or a flow is suspect or malicious",
		ArgsUsage: "suspect|malicious",
		Description: "For an antivirus or any other tool. What is suspect goes through the IDS, what is malicious is dropped,\n" +
			"until the report expires or \"gatewayd release\" lifts it. For example:\n\n" +
			"    gatewayd report malicious --vm app1 --pid 812 --author clamav --reason Unix.Trojan.Mirai\n" +
			"    gatewayd report suspect --fingerprint 8d3f5c1b --author osv --reason CVE-2023-38545 --for 168h\n" +
			"    gatewayd report suspect --flow \"tcp 10.0.0.11:40000 10.0.0.21:80\" --author nfsen --reason beacon",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "vm", Usage: "the `VM`, or where the process or the file is"},
			&cli.Uint64Flag{Name: "pid", Usage: "the process `PID` of the VM", DefaultText: "the whole VM"},
			&cli.StringFlag{Name: "fingerprint", Usage: "ELF build id in `HEX`: all processes that run the file"},
			&cli.StringFlag{Name: "flow", Usage: "a `FLOW`: \"PROTO SRC[:PORT] DST[:PORT]\""},
			&cli.StringFlag{Name: "author", Usage: "the `TOOL` that says so (needed)"},
			&cli.StringFlag{Name: "reason", Usage: "`WHY` (needed)"},
			&cli.DurationFlag{Name: "for", Value: 24 * time.Hour, Usage: "stands for `DURATION`"},
		},
		Action: sendReport,
	}
}

func sendReport(c *cli.Context) error {
	if err := wantArgs(c, 1); err != nil {
		return err
	}
	pid := c.Uint64("pid")
	if c.IsSet("pid") && (pid == 0 || pid != uint64(uint32(pid))) {
		return usageErrorf("%d is no process id", pid)
	}
	r := api.Report{
		Finding: c.Args().First(), VM: c.String("vm"), PID: uint32(pid), Fingerprint: c.String("fingerprint"),
		Author: c.String("author"), Reason: c.String("reason"), For: c.Duration("for"),
	}
	if c.IsSet("flow") {
		flow, err := parseFlow(c.String("flow"))
		if err != nil {
			return err
		}
		r.Flow = &flow
	}
	if err := r.Check(); err != nil {
		return usageError{err}
	}
	if err := daemonOf(c).Report(c.Context, r); err != nil {
		return err
	}
	return confirm(c, r, "taken in as %s for %v", r.Finding, r.For)
}
