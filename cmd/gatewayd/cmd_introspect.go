package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/vmgate/vmgate/internal/api"
	"github.com/vmgate/vmgate/internal/source"
	"github.com/vmgate/vmgate/pkg/vmi"
)

// introspectTimeout bounds a look into a guest; discovery of its kernel in many
// GiB of memory takes seconds.
const introspectTimeout = time.Minute

func cmdIntrospect() *cli.Command {
	return &cli.Command{
		Name:  "introspect",
		Usage: "look into a guest without a daemon and without a configuration: by its memory file, a dump, or its QEMU",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "memory", Usage: "shared memory-backend `FILE` of QEMU, a copy of it, or a dump", TakesFile: true},
			&cli.StringFlag{Name: "format", Value: "auto", Usage: "`FORMAT` of the file: raw, lime, elf (QEMU's dump-guest-memory), or auto to tell from the file"},
			&cli.StringFlag{Name: "process", Usage: "instead of a file: `NAME` or pid of a QEMU on this machine"},
			&cli.StringFlag{Name: "monitor", Usage: "`SOCKET` of QEMU's -qmp: with --process to ask it where RAM is, alone to have it write RAM out", TakesFile: true},
			&cli.StringFlag{Name: "ivshmem", Usage: "in a VM: `SIZE` of the guest's RAM behind an ivshmem device, such as 512M or 512M@0000:00:05.0"},
			&cli.StringFlag{Name: "nvdimm", Usage: "in a VM: `SIZE` of the guest's RAM behind an NVDIMM, such as 384M or 384M@0x100000000"},
			&cli.StringFlag{Name: "btf", Usage: "`FILE` with the type information of exactly the guest's kernel, if it has none in its memory", TakesFile: true},
			&cli.StringFlag{Name: "system-map", Usage: "System.map `FILE` of exactly the guest's kernel, if its symbols cannot be found", TakesFile: true},
			&cli.StringFlag{Name: "machine", Value: "q35", Usage: "`MACHINE` of QEMU: q35 or pc, where RAM is split below 4 GiB"},
		},
		Action: unknownSubverb,
		Subcommands: []*cli.Command{
			{Name: "ps", Usage: "list the guest's processes, hidden ones too", Action: introspectPs},
			{Name: "sockets", Usage: "list the guest's sockets and who holds them", Action: introspectSockets},
			{Name: "owner", Usage: "say which processes hold a port", ArgsUsage: "PROTO [ADDR:]PORT", Flags: ownerFlags(), Action: introspectOwner},
			{Name: "modules", Usage: "list the guest's kernel modules, hidden ones too", Action: introspectModules},
			{Name: "findings", Usage: "say what the guest's own listings hide, and what could not be looked at", Action: introspectFindings},
			{Name: "fingerprint", Usage: "identify the program that a process runs by its text in memory", ArgsUsage: "PID", Action: introspectFingerprint},
		},
	}
}

func unknownSubverb(c *cli.Context) error {
	return usageErrorf("%s needs one of its verbs, not %q: try \"%s --help\"", c.Command.HelpName, c.Args().First(), c.Command.HelpName)
}

func introspectPs(c *cli.Context) error {
	if err := wantArgs(c, 0); err != nil {
		return err
	}
	return lookInto(c, func(ctx context.Context, guest vmi.Guest) error {
		processes, err := guest.Processes(ctx)
		if err != nil {
			return err
		}
		return show(c, processes, func(t *table) { printGuestProcesses(t, processes) })
	})
}

func introspectSockets(c *cli.Context) error {
	if err := wantArgs(c, 0); err != nil {
		return err
	}
	return lookInto(c, func(ctx context.Context, guest vmi.Guest) error {
		sockets, err := guest.Sockets(ctx)
		if err != nil {
			return err
		}
		return show(c, sockets, func(t *table) { printSockets(t, sockets) })
	})
}

func introspectOwner(c *cli.Context) error {
	if err := wantArgs(c, 2); err != nil {
		return err
	}
	proto, err := api.ParseProto(c.Args().First())
	if err != nil {
		return usageError{err}
	}
	q, err := ownerQuery(c, api.ProtoName(proto), c.Args().Get(1))
	if err != nil {
		return err
	}
	return lookInto(c, func(ctx context.Context, guest vmi.Guest) error {
		answer, err := guest.Owners(ctx, vmi.Query{Proto: proto, Local: netip.AddrPortFrom(q.Addr, q.Port.Port), Remote: q.Remote, NetNS: q.NetNS})
		if err != nil {
			return err
		}
		return showOwner(c, q, answer, func(_ context.Context, p vmi.Process) (vmi.Fingerprint, error) {
			return guest.Fingerprint(ctx, p.PID, p.Start)
		})
	})
}

func introspectModules(c *cli.Context) error {
	if err := wantArgs(c, 0); err != nil {
		return err
	}
	return lookInto(c, func(ctx context.Context, guest vmi.Guest) error {
		modules, err := guest.Modules(ctx)
		if err != nil {
			return err
		}
		return show(c, modules, func(t *table) { printModules(t, modules) })
	})
}

func introspectFindings(c *cli.Context) error {
	if err := wantArgs(c, 0); err != nil {
		return err
	}
	return lookInto(c, func(ctx context.Context, guest vmi.Guest) error {
		findings, err := guest.Findings(ctx)
		if err != nil {
			return err
		}
		return show(c, findings, func(t *table) { printFindings(t, findings) })
	})
}

func introspectFingerprint(c *cli.Context) error {
	if err := wantArgs(c, 1); err != nil {
		return err
	}
	pid, err := strconv.ParseUint(c.Args().First(), 10, 32)
	if err != nil {
		return usageErrorf("%q is no pid", c.Args().First())
	}
	return lookInto(c, func(ctx context.Context, guest vmi.Guest) error {
		processes, err := guest.Processes(ctx)
		if err != nil {
			return err
		}
		i := slices.IndexFunc(processes, func(p vmi.Process) bool { return uint64(p.PID) == pid })
		if i < 0 {
			return fmt.Errorf("%w: the guest has no process %d", api.ErrNotFound, pid)
		}
		f, err := guest.Fingerprint(ctx, processes[i].PID, processes[i].Start)
		if err != nil {
			return err
		}
		return show(c, f, func(t *table) { printFingerprint(t, f) })
	})
}

// parseLocal reads a port with or without an address.
func parseLocal(s string) (netip.AddrPort, error) {
	if local, err := netip.ParseAddrPort(s); err == nil {
		return local, nil
	}
	port, err := strconv.ParseUint(s, 10, 16)
	if err != nil {
		return netip.AddrPort{}, usageErrorf("%q is no port: write 80, 10.0.0.1:80 or [2001:db8::1]:80", s)
	}
	return netip.AddrPortFrom(netip.Addr{}, uint16(port)), nil
}

// lookInto opens the guest that the command line names for the time of look.
func lookInto(c *cli.Context, look func(context.Context, vmi.Guest) error) (err error) {
	ctx, cancel := context.WithTimeout(c.Context, introspectTimeout)
	defer cancel()
	place, name, err := placeOf(c)
	if err != nil {
		return err
	}
	memory, err := openMemory(ctx, c, place)
	if err != nil {
		return invalidInput{err}
	}
	guest, err := memory.Discover(ctx, source.Help(place, vmi.Options{}))
	if err != nil {
		return fmt.Errorf("cannot look into %s: %w", name, err)
	}
	defer func() { err = errors.Join(err, guest.Close()) }()
	return look(ctx, guest)
}

func printGuestProcesses(t *table, processes []vmi.Process) {
	t.row("PID", "PPID", "UID", "HIDDEN", "VIEWS", "NAME", "COMMAND")
	for _, p := range processes {
		hidden := yes(p.Hidden)
		if p.Hidden && p.HiddenWhy != "" {
			hidden += ": " + p.HiddenWhy
		}
		t.row(p.PID, p.PPID, p.UID, hidden, strings.Join(p.Views, ","), p.Name, command(p))
	}
}
