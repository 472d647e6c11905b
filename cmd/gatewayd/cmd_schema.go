package main

import (
	"github.com/urfave/cli/v2"

	"github.com/vmgate/vmgate/internal/config"
)

func cmdSchema() *cli.Command {
	return &cli.Command{
		Name:  "schema",
		Usage: "print the JSON Schema of the configuration, for editors and other checkers",
		Action: func(c *cli.Context) error {
			if err := wantArgs(c, 0); err != nil {
				return err
			}
			_, err := c.App.Writer.Write(config.Schema())
			return err
		},
	}
}
