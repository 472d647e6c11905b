package main

import (
	"github.com/urfave/cli/v2"
)

func cmdListsImport() *cli.Command {
	return &cli.Command{
		Name:      "import",
		Usage:     "add the entries of a file, all of them or none",
		ArgsUsage: "FILE",
		Description: "FILE (- for standard input) is a JSON array of objects, or CSV whose first line names its columns:\n" +
			"list, name, path, fingerprint, vm, reason, in any order; list and one of name, path and fingerprint are needed.",
		Action: importLists,
	}
}

func importLists(c *cli.Context) error {
	if err := wantArgs(c, 1); err != nil {
		return err
	}
	text, err := readFile(c, c.Args().First())
	if err != nil {
		return err
	}
	entries, err := parseEntries(text)
	if err != nil {
		return err
	}
	if err := daemonOf(c).ImportListEntries(c.Context, entries); err != nil {
		return err
	}
	return confirm(c, entries, "entries added: %d", len(entries))
}
