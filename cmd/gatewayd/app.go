package main

import (
	"fmt"
	"io"

	"github.com/urfave/cli/v2"
)

//go:generate go test -run TestReference -update .

const description = `gatewayd is an inline security gateway for virtual machines that knows which
process in which VM opened each connection. "gatewayd run" is the daemon; most
other verbs ask it over a unix socket that root and the members of one
configured group may use. Flags may stand before or after arguments.`

// newApp builds the command line; it keeps no state between runs.
func newApp(stdin io.Reader, stdout, stderr io.Writer) *cli.App {
	app := &cli.App{
		Name:                 "gatewayd",
		Usage:                "inline security gateway for virtual machines",
		Description:          description,
		Reader:               stdin,
		Writer:               stdout,
		ErrWriter:            stderr,
		Flags:                globalFlags(),
		Before:               checkFormat,
		Action:               unknownVerb,
		EnableBashCompletion: true,
		HideVersion:          true,                         // there is a verb for it
		ExitErrHandler:       func(*cli.Context, error) {}, // run does it
		OnUsageError:         asUsageError,
		Commands: []*cli.Command{
			cmdRun(), cmdTeardown(), cmdValidate(), cmdSchema(),
			cmdStatus(), cmdReload(), cmdVMs(), cmdPs(), cmdSockets(), cmdOwner(), cmdFindings(), cmdModules(), cmdFlows(), cmdExplain(), cmdMonitor(),
			cmdVerdicts(), cmdLists(), cmdPolicy(), cmdIsolate(), cmdInspect(), cmdRelease(), cmdReport(), cmdIDS(),
			cmdIntrospect(), cmdInspector(), cmdCompletion(), cmdVersion(),
		},
	}
	finish(app.Commands)
	return app
}

// finish gives all commands what the library does not inherit.
func finish(commands []*cli.Command) {
	for _, c := range commands {
		c.OnUsageError = asUsageError
		c.HideHelpCommand = true
		finish(c.Subcommands)
	}
}

func globalFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "socket", Value: "/run/vmgate/gatewayd.sock", EnvVars: []string{"VMGATE_SOCKET"}, Usage: "socket of the daemon", TakesFile: true},
		&cli.StringFlag{Name: "output", Aliases: []string{"o"}, Value: "table", Usage: "`FORMAT` of the output: table for people, json for programs"},
	}
}

func unknownVerb(c *cli.Context) error {
	if c.Args().Present() {
		return usageErrorf("there is no verb %q: \"gatewayd --help\" lists them", c.Args().First())
	}
	return cli.ShowAppHelp(c)
}

func asUsageError(_ *cli.Context, err error, _ bool) error { return usageError{err} }

// wantArgs checks that there are exactly as many arguments as the command's
// ArgsUsage names.
func wantArgs(c *cli.Context, n int) error {
	if c.NArg() == n {
		return nil
	}
	want := "no arguments"
	if n > 0 {
		want = c.Command.ArgsUsage
	}
	return usageErrorf("%s takes %s, not %d argument(s): try \"%s --help\"", c.Command.HelpName, want, c.NArg(), c.Command.HelpName)
}

func usageErrorf(format string, args ...any) error {
	return usageError{fmt.Errorf(format, args...)}
}
