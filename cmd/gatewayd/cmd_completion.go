package main

import (
	_ "embed"
	"io"

	"github.com/urfave/cli/v2"
)

//go:embed completion.bash
var completionScript string

func cmdCompletion() *cli.Command {
	return &cli.Command{
		Name:      "completion",
		Usage:     "print the completion script of a shell; the shell's start-up file can source it",
		ArgsUsage: "bash",
		Action: func(c *cli.Context) error {
			if err := wantArgs(c, 1); err != nil {
				return err
			}
			if shell := c.Args().First(); shell != "bash" {
				return usageErrorf("there is no completion for %q, only for bash", shell)
			}
			_, err := io.WriteString(c.App.Writer, completionScript)
			return err
		},
	}
}
