package main

import (
	"context"
	"errors"
	"flag"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/vmgate/vmgate/internal/api"
	"github.com/vmgate/vmgate/internal/api/apitest"
)

var update = flag.Bool("update", false, "rewrite the goldens of the scripts and docs/cli.md")

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"gatewayd": main})
}

// TestScripts runs the command line as operators do, against a real server over
// a backend in memory. Scripts have these commands besides testscript's own:
//
//	exits N COMMAND…   the command ends with exit code N
//	saw LINE           the backend was called so
//	unseen             the backend was not called to change anything
//	daemon stop        the daemon is gone, its socket too
//	daemon kill        the daemon is gone, its socket is left
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		UpdateScripts:       *update,
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup:               startDaemon,
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits": exits, "saw": saw, "unseen": unseen, "daemon": stopDaemon,
		},
	})
}

// testDaemon is what answers one script.
type testDaemon struct {
	*apitest.Fake
	socket string
	stop   func()
}

type daemonKey struct{}

func startDaemon(env *testscript.Env) error {
	// Not in the script's directory: its path may be too long for a socket.
	dir, err := os.MkdirTemp("", "vmgate-cli-")
	if err != nil {
		return err
	}
	fake := apitest.New()
	fake.EndStream = true
	socket := filepath.Join(dir, "s")
	server, err := api.Listen(api.ServerConfig{Path: socket, Backend: fake, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- server.Serve(ctx) }()
	stop := func() { cancel(); <-done; done <- nil }
	env.Defer(func() { stop(); _ = os.RemoveAll(dir) })
	env.Values[daemonKey{}] = &testDaemon{fake, socket, stop}

	me, err := user.Current()
	if err != nil {
		return err
	}
	env.Setenv("ME", me.Username)
	env.Setenv("VMGATE_SOCKET", socket)
	env.Setenv("TZ", "UTC")
	return nil
}

func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE COMMAND…")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		exit, ok := errors.AsType[*exec.ExitError](err)
		if !ok {
			ts.Fatalf("%v", err)
		}
		got = exit.ExitCode()
	}
	if got != want {
		ts.Fatalf("exit code %d, want %d", got, want)
	}
}

func saw(ts *testscript.TestScript, neg bool, args []string) {
	calls := ts.Value(daemonKey{}).(*testDaemon).Calls()
	if found := slices.Contains(calls, strings.Join(args, " ")); found == neg {
		ts.Fatalf("the backend saw %q", calls)
	}
}

func unseen(ts *testscript.TestScript, neg bool, _ []string) {
	calls := ts.Value(daemonKey{}).(*testDaemon).Calls()
	if (len(calls) == 0) == neg {
		ts.Fatalf("the backend saw %q", calls)
	}
}

func stopDaemon(ts *testscript.TestScript, neg bool, args []string) {
	d := ts.Value(daemonKey{}).(*testDaemon)
	d.stop()
	switch {
	case neg || len(args) != 1:
		ts.Fatalf("usage: daemon stop|kill")
	case args[0] == "kill":
		ts.Check(leaveSocket(d.socket))
	}
}

// leaveSocket makes a socket that nobody listens on, as a killed daemon leaves it.
func leaveSocket(path string) error {
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return err
	}
	listener.SetUnlinkOnClose(false)
	return listener.Close()
}
