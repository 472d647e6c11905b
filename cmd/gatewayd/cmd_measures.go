package main

import (
	"fmt"

	"github.com/urfave/cli/v2"

	"github.com/vmgate/vmgate/internal/api"
)

func cmdIsolate() *cli.Command {
	return cmdMeasure("isolate", "isolated", "drop all that a VM, or one process of it, sends or is sent")
}

func cmdInspect() *cli.Command {
	return cmdMeasure("inspect", "inspected", "send all traffic of a VM, or of one process of it, through the IDS")
}

func cmdRelease() *cli.Command {
	return cmdMeasure("release", "released", "lift what isolate and inspect have done")
}

func cmdMeasure(action, done, usage string) *cli.Command {
	return &cli.Command{
		Name:         action,
		Usage:        usage,
		ArgsUsage:    "VM",
		Flags:        []cli.Flag{&cli.Uint64Flag{Name: "pid", Usage: "only the process `PID` of the VM", DefaultText: "the whole VM"}},
		BashComplete: completeVM,
		Action: func(c *cli.Context) error {
			if err := wantArgs(c, 1); err != nil {
				return err
			}
			pid := c.Uint64("pid")
			if c.IsSet("pid") && (pid == 0 || pid != uint64(uint32(pid))) {
				return usageErrorf("%d is no process id", pid)
			}
			m := api.Measure{Action: action, VM: c.Args().First(), PID: uint32(pid)}
			if err := daemonOf(c).Measure(c.Context, m); err != nil {
				return err
			}
			whom := m.VM
			if m.PID != 0 {
				whom = fmt.Sprintf("process %d of %s", m.PID, m.VM)
			}
			return confirm(c, m, "%s is %s", whom, done)
		},
	}
}
