package main

import (
	"context"
	"slices"

	"github.com/urfave/cli/v2"

	"github.com/vmgate/vmgate/internal/api"
)

func cmdLists() *cli.Command {
	only := &cli.StringFlag{Name: "list", Usage: "only the list `LIST`: suspect or malicious"}
	return &cli.Command{
		Name:   "lists",
		Usage:  "show and change the suspect list and the malicious list",
		Flags:  []cli.Flag{only},
		Action: showLists,
		Subcommands: []*cli.Command{
			{Name: "show", Usage: "show the lists (also without the word show)", Flags: []cli.Flag{only}, Action: showLists},
			cmdListsAdd(),
			{
				Name:      "remove",
				Usage:     "remove an entry",
				ArgsUsage: "ID",
				Action:    removeListEntry,
			},
			cmdListsImport(),
		},
	}
}

func showLists(c *cli.Context) error {
	only := c.String("list")
	if only != "" && only != "suspect" && only != "malicious" {
		return usageErrorf("there is no list %q: want suspect or malicious", only)
	}
	return showFrom(c, func(ctx context.Context) ([]api.ListEntry, error) {
		entries, err := daemonOf(c).Lists(ctx)
		return slices.DeleteFunc(entries, func(e api.ListEntry) bool { return only != "" && e.List != only }), err
	}, printLists)
}

func printLists(t *table, entries []api.ListEntry) {
	t.row("ID", "LIST", "ORIGIN", "NAME", "PATH", "FINGERPRINT", "VM", "PID", "ADDED", "REASON")
	for _, e := range entries {
		t.row(e.ID, e.List, e.Origin, e.Name, e.Path, e.Fingerprint, e.VM, number(e.PID), clock(e.Added), e.Reason)
	}
}

func cmdListsAdd() *cli.Command {
	return &cli.Command{
		Name:  "add",
		Usage: "add an entry; a process matches if all given properties do",
		Flags: []cli.Flag{
			&cli.StringFlag{Name: "list", Usage: "`LIST`: suspect or malicious (needed)"},
			&cli.StringFlag{Name: "name", Usage: "`NAME` of the process as the kernel keeps it (comm)"},
			&cli.StringFlag{Name: "path", Usage: "`PATH` of the executable as the guest sees it"},
			&cli.StringFlag{Name: "fingerprint", Usage: "ELF build id in `HEX`"},
			&cli.StringFlag{Name: "vm", Usage: "only in `VM` (default: in any)"},
			&cli.StringFlag{Name: "reason", Usage: "`REASON` for people, for example a CVE"},
		},
		Action: addListEntry,
	}
}

func addListEntry(c *cli.Context) error {
	if err := wantArgs(c, 0); err != nil {
		return err
	}
	entry := api.ListEntry{
		List: c.String("list"), Name: c.String("name"), Path: c.String("path"),
		Fingerprint: c.String("fingerprint"), VM: c.String("vm"), Reason: c.String("reason"),
	}
	if err := entry.Check(); err != nil {
		return usageError{err}
	}
	if err := daemonOf(c).AddListEntry(c.Context, entry); err != nil {
		return err
	}
	return confirm(c, entry, "added to the %s list", entry.List)
}

func removeListEntry(c *cli.Context) error {
	if err := wantArgs(c, 1); err != nil {
		return err
	}
	id := c.Args().First()
	if err := daemonOf(c).RemoveListEntry(c.Context, id); err != nil {
		return err
	}
	return confirm(c, map[string]string{"id": id}, "removed %s", id)
}
