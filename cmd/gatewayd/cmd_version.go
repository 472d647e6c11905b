package main

import (
	"runtime/debug"

	"github.com/urfave/cli/v2"
)

// version is set when releases are built, with -ldflags "-X main.version=…".
var version = "devel"

func cmdVersion() *cli.Command {
	return &cli.Command{
		Name:  "version",
		Usage: "print the version of this program; \"status\" prints that of the daemon",
		Action: func(c *cli.Context) error {
			if err := wantArgs(c, 0); err != nil {
				return err
			}
			v := buildInfo()
			return show(c, v, func(t *table) {
				t.row("gatewayd", v.Version)
				t.field("revision", v.Revision)
				t.row("go", v.Go)
			})
		},
	}
}

type build struct {
	Version  string `json:"version"`
	Revision string `json:"revision,omitempty"`
	Go       string `json:"go"`
}

func buildInfo() build {
	v := build{Version: version}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return v
	}
	v.Go = info.GoVersion
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			v.Revision = s.Value
		}
	}
	return v
}
