package main

import (
	"errors"
	"fmt"

	"github.com/urfave/cli/v2"

	"github.com/vmgate/vmgate/internal/config"
)

func cmdValidate() *cli.Command {
	return &cli.Command{
		Name:        "validate",
		Usage:       "check a configuration file without a daemon, and show all that is wrong with it",
		ArgsUsage:   "FILE",
		Description: "Exits with 5 if anything is wrong. \"policy check\" asks the daemon what the file would change.",
		Flags:       []cli.Flag{&cli.BoolFlag{Name: "host", Usage: "also check what it names against this machine: vNICs, memory files, rule files"}},
		Action:      validate,
	}
}

// report is the outcome for programs.
type report struct {
	OK       bool      `json:"ok"`
	File     string    `json:"file"`
	Problems []problem `json:"problems"`
}

type problem struct {
	Line    int    `json:"line,omitempty"`
	Column  int    `json:"column,omitempty"`
	Source  string `json:"source,omitempty"`
	Message string `json:"message"`
}

func validate(c *cli.Context) error {
	if err := wantArgs(c, 1); err != nil {
		return err
	}
	file := c.Args().First()
	cfg, err := config.Load(file)
	if err == nil && c.Bool("host") {
		err = errors.Join(cfg.CheckHost()...)
	}
	if err == nil {
		return confirm(c, report{OK: true, File: file, Problems: []problem{}}, "ok")
	}
	if !wantsJSON(c) {
		return wrongConfig(err)
	}
	return errors.Join(errReported, show(c, report{File: file, Problems: problems(err)}, nil))
}

// wrongConfig heads the problems of a configuration, which have a line each and more.
func wrongConfig(err error) error {
	return invalidInput{fmt.Errorf("cannot use the configuration:\n%w", err)}
}

// problems takes apart what the config package has joined.
func problems(err error) []problem {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		var all []problem
		for _, e := range joined.Unwrap() {
			all = append(all, problems(e)...)
		}
		return all
	}
	if p, ok := errors.AsType[*config.Problem](err); ok {
		return []problem{{p.Line, p.Column, p.Source, p.Message}}
	}
	return []problem{{Message: err.Error()}}
}
