package main

import (
	"fmt"
	"net"
	"os/user"
	"strconv"
	"strings"

	"github.com/urfave/cli/v2"

	"github.com/vmgate/vmgate/internal/config"
	"github.com/vmgate/vmgate/internal/inspector"
	"github.com/vmgate/vmgate/pkg/vmi/qemu"
)

func cmdInspector() *cli.Command {
	return &cli.Command{
		Name:   "inspector",
		Usage:  "look into the guests of this hypervisor host, for gateways elsewhere",
		Action: unknownSubverb,
		Subcommands: []*cli.Command{
			{
				Name:  "run",
				Usage: "serve the guests that the configuration names until it is interrupted",
				Description: "It answers gateways by mutually authenticated TLS 1.3, keeps no privilege but those that reading guests'\n" +
					"memory takes, and never writes to a guest. Machines are found when they start, and again after a restart.",
				Flags: append([]cli.Flag{
					&cli.StringFlag{Name: "config", Value: "/etc/vmgate/inspector.yaml", EnvVars: []string{"VMGATE_INSPECTOR_CONFIG"}, Usage: "configuration `FILE`", TakesFile: true},
				}, logFlags()...),
				Action: runInspector,
			},
			{Name: "guests", Usage: "list the QEMU guests of this host, and how their memory can be read", Action: listMachines},
		},
	}
}

func runInspector(c *cli.Context) error {
	if err := wantArgs(c, 0); err != nil {
		return err
	}
	log, err := newLogger(c.App.ErrWriter, c.String("log-level"), c.String("log-format"))
	if err != nil {
		return err
	}
	cfg, err := config.LoadInspector(c.String("config"))
	if err != nil {
		return wrongConfig(err)
	}
	if err := inspector.Restrict(inspector.Needed(cfg)); err != nil {
		return err
	}
	i, err := inspector.New(cfg, log)
	if err != nil {
		return wrongConfig(err)
	}
	listener, err := net.Listen("tcp", cfg.Listen)
	if err != nil {
		return fmt.Errorf("cannot listen: %w", err)
	}
	tellServiceManager(log)("READY=1")
	return i.Run(c.Context, listener)
}

func listMachines(c *cli.Context) error {
	if err := wantArgs(c, 0); err != nil {
		return err
	}
	machines, err := qemu.Find()
	if err != nil {
		return err
	}
	if machines == nil {
		machines = []qemu.Machine{} // JSON's empty list
	}
	return show(c, machines, func(t *table) {
		t.row("NAME", "PID", "USER", "MACHINE", "RAM", "MEMORY", "MONITORS")
		for _, m := range machines {
			memory := string(m.Backing)
			if m.File != "" {
				memory = m.File
			}
			t.row(m.Name, m.PID, userName(m.UID), m.Type, config.Size(m.RAM), memory, strings.Join(append(m.Monitors, m.Libvirt...), " "))
		}
	})
}

func userName(uid uint32) string {
	id := strconv.FormatUint(uint64(uid), 10)
	if u, err := user.LookupId(id); err == nil {
		return u.Username
	}
	return id
}
