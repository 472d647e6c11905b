package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"path/filepath"

	"github.com/coreos/go-systemd/v22/daemon"
	"github.com/urfave/cli/v2"
	"golang.org/x/sys/unix"

	"github.com/vmgate/vmgate/internal/api"
	"github.com/vmgate/vmgate/internal/app"
	"github.com/vmgate/vmgate/internal/config"
)

func cmdRun() *cli.Command {
	return &cli.Command{
		Name:  "run",
		Usage: "run the daemon until it is interrupted",
		Description: "SIGHUP reloads the configuration, SIGTERM and SIGINT end the daemon. What was decided stays in force\n" +
			"without it; \"teardown\" removes that. Under systemd it reports when it is ready and that it is alive.",
		Flags:  append(daemonFlags(), logFlags()...),
		Action: runDaemon,
	}
}

// daemonFlags are those of the verbs that work on the machine itself.
func daemonFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "config", Value: "/etc/vmgate/gateway.yaml", EnvVars: []string{"VMGATE_CONFIG"}, Usage: "configuration `FILE`", TakesFile: true},
	}
}

func logFlags() []cli.Flag {
	return []cli.Flag{
		&cli.StringFlag{Name: "log-level", Value: "info", Usage: "least `LEVEL` to log: debug, info, warn or error"},
		&cli.StringFlag{Name: "log-format", Value: "text", Usage: "`FORMAT` of the log on standard error: text or json"},
	}
}

func runDaemon(c *cli.Context) error {
	if err := wantArgs(c, 0); err != nil {
		return err
	}
	log, err := newLogger(c.App.ErrWriter, c.String("log-level"), c.String("log-format"))
	if err != nil {
		return err
	}
	cfg, options, err := daemonOptions(c, log)
	if err != nil {
		return err
	}
	a, err := app.New(options)
	if err != nil {
		return err
	}
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, unix.SIGHUP)
	defer signal.Stop(hangups)

	interval, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		return fmt.Errorf("cannot tell what the service manager's watchdog wants: %w", err)
	}
	// The watchdog asks over the socket, as operators do.
	client := api.NewClient(filepath.Join(cfg.Gateway.Run, "gatewayd.sock"))
	s := supervisor{
		log:      log,
		tell:     tellServiceManager(log),
		hangups:  hangups,
		interval: interval / 2,
		alive: func(ctx context.Context) error {
			_, err := client.Status(ctx)
			return err
		},
	}
	return s.run(c.Context, a)
}

// daemonOptions also reads the configuration, so that a wrong one is told from
// whatever else can fail.
func daemonOptions(c *cli.Context, log *slog.Logger) (*config.Config, app.Options, error) {
	path := c.String("config")
	cfg, err := config.Load(path)
	if err != nil {
		return nil, app.Options{}, wrongConfig(err)
	}
	return cfg, app.Options{ConfigPath: path, Version: version, Log: log}, nil
}

// tellServiceManager sends sd_notify(3) states; without a service manager it
// does nothing. go-systemd knows the protocol, abstract sockets included.
func tellServiceManager(log *slog.Logger) func(string) {
	return func(state string) {
		if _, err := daemon.SdNotify(false, state); err != nil {
			log.Warn("cannot tell the service manager", "state", state, "error", err)
		}
	}
}
