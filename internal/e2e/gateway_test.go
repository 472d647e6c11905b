package e2e_test

import (
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vmgate/vmgate/internal/api"
	"github.com/vmgate/vmgate/internal/lab"
)

// gateway is a topology with a gatewayd in its gateway namespace.
type gateway struct {
	*lab.Topology
	t      *testing.T
	dir    string // of the daemon's files
	config string
	pins   string
	client *api.Client
	setup  setup
	events *feed

	appsWire, webWire *capture // what the gateway sends to each vSwitch

	command *exec.Cmd
	ended   chan struct{} // closed when the daemon has ended
}

// namespaced makes the topology, with namespaces for hosts, and runs gatewayd in
// it until the test ends.
func namespaced(t *testing.T, s setup) *gateway {
	t.Helper()
	if s.IDS != "" {
		needSuricata(t)
	}
	g := newGateway(t)
	g.setup = s
	g.write(s)
	g.start()
	return g
}

// newGateway makes the topology, in which no daemon runs yet.
func newGateway(t *testing.T) *gateway {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root: network namespaces and BPF programs")
	}
	t.Parallel() // every gateway is alone in its namespaces
	dir, err := os.MkdirTemp("", "vmgate-e2e-")
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	g := &gateway{
		t: t, dir: dir, config: filepath.Join(dir, "gateway.yaml"),
		pins:   fmt.Sprintf("%s%d-%s", pinPrefix, os.Getpid(), strings.ToLower(rand.Text()[:6])),
		client: api.NewClient(filepath.Join(dir, "run", "gatewayd.sock")),
	}
	g.Topology, err = lab.NewTopology(t.Context(), lab.Namespaces, nil)
	must(t, err)
	t.Cleanup(func() {
		g.stop(syscall.SIGTERM)
		g.teardown()
		if err := g.Close(); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Logf("gatewayd said:\n%s", g.log())
		}
	})
	g.appsWire = listen(t, g.Apps.Namespace, g.Apps.Port)
	g.webWire = listen(t, g.Web.Namespace, g.Web.Port)
	return g
}

// start runs gatewayd and waits until everything that it was told of is there.
func (g *gateway) start() {
	g.t.Helper()
	g.launch()
	g.awaitUp()
	g.follow()
}

func (g *gateway) launch() {
	g.t.Helper()
	log, err := os.OpenFile(g.logFile(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	must(g.t, err)
	defer log.Close() // the daemon has its own descriptor
	g.command = g.Gateway.Command(context.Background(), gatewayd, "run", "--config", g.config)
	g.command.Stdout, g.command.Stderr = log, log
	must(g.t, g.command.Start())
	command, ended := g.command, make(chan struct{})
	g.ended = ended
	go func() {
		_ = command.Wait() // its log tells how it went
		close(ended)
	}()
}

func (g *gateway) awaitUp() {
	g.t.Helper()
	await(g.t, "gatewayd is up", func() bool {
		if g.hasEnded() {
			g.t.Fatalf("gatewayd has ended")
		}
		status, err := g.client.Status(g.t.Context())
		if err != nil || status.PID != g.command.Process.Pid || g.setup.IDS != "" && status.IDS.State != "up" {
			return false
		}
		for _, s := range status.Segments {
			if s.State != "attached" {
				return false
			}
		}
		return true
	})
}

// follow begins to collect the running daemon's events.
func (g *gateway) follow() {
	g.t.Helper()
	var err error
	g.events, err = follow(g.t, g.client)
	must(g.t, err)
}

func (g *gateway) hasEnded() bool {
	select {
	case <-g.ended:
		return true
	default:
		return false
	}
}

// stop ends the daemon with a signal, if it runs, and waits for it.
func (g *gateway) stop(signal syscall.Signal) {
	g.t.Helper()
	if g.ended == nil {
		return
	}
	_ = g.command.Process.Signal(signal) // it may have ended already
	select {
	case <-g.ended:
	case <-time.After(patience):
		g.t.Errorf("gatewayd does not end by %v", signal)
		_ = g.command.Process.Kill()
		<-g.ended
	}
}

// restart ends the daemon with a signal, calls between, and starts it again.
func (g *gateway) restart(signal syscall.Signal, between func()) {
	g.t.Helper()
	g.stop(signal)
	between()
	g.start()
}

// teardown takes what the daemon left out of the kernel.
func (g *gateway) teardown() {
	g.t.Helper()
	if _, err := os.Stat(g.config); err != nil {
		return // none ever ran
	}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if out, err := g.Gateway.Command(ctx, gatewayd, "teardown", "--config", g.config).CombinedOutput(); err != nil {
		// A test of a wrong configuration leaves one that teardown cannot read.
		if g.command != nil {
			g.t.Errorf("cannot tear down: %v: %s", err, out)
		}
	}
}

// run runs one verb of gatewayd to its end and returns its exit status.
func (g *gateway) run(args ...string) (out string, exit int) {
	g.t.Helper()
	command := g.Gateway.Command(soon(g.t), gatewayd, args...)
	b, err := command.CombinedOutput()
	if command.ProcessState == nil {
		g.t.Fatalf("cannot run gatewayd %q: %v", args, err)
	}
	return string(b), command.ProcessState.ExitCode()
}

func (g *gateway) logFile() string { return filepath.Join(g.dir, "gatewayd.log") }

// log is the end of what the daemon said.
func (g *gateway) log() string {
	b, _ := os.ReadFile(g.logFile())
	return string(b[max(0, len(b)-8192):])
}

// counts are the data plane's packets by place and reason, "web/forward".
type counts map[string]uint64

func (g *gateway) counts() counts {
	g.t.Helper()
	status, err := g.client.Status(g.t.Context())
	must(g.t, err)
	c := counts{}
	for _, n := range status.Counters {
		c[n.Segment+"/"+n.Reason] = n.Packets
	}
	return c
}

// since is what was counted of a kind after an earlier reading.
func (g *gateway) since(before counts, kind string) uint64 {
	g.t.Helper()
	return g.counts()[kind] - before[kind]
}

// awaitCount waits until a counter has grown by at least n.
func (g *gateway) awaitCount(t *testing.T, before counts, kind string, n uint64) {
	t.Helper()
	await(t, fmt.Sprintf("%s grows by %d", kind, n), func() bool { return g.since(before, kind) >= n })
}
