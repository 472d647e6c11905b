package e2e_test

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"testing"

	"github.com/vmgate/vmgate/internal/lab"
	"github.com/vmgate/vmgate/internal/lab/daemon"
)

// gateway is a topology with a gatewayd in its gateway namespace.
type gateway struct {
	*lab.Topology
	*daemon.Daemon
	t      *testing.T
	events *feed

	appsWire, webWire *capture // what the gateway sends to each vSwitch
}

// namespaced makes the topology, with namespaces for hosts, and runs gatewayd in
// it until the test ends.
func namespaced(t *testing.T, s setup) *gateway {
	t.Helper()
	if s.IDS != "" && s.Engine != "snort" {
		needSuricata(t)
	}
	g := newGateway(t)
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
	topology, err := lab.NewTopology(t.Context(), lab.Namespaces, nil)
	must(t, err)
	d, err := daemon.New(topology.Gateway, gatewayd)
	if err != nil {
		t.Fatal(errors.Join(err, topology.Close()))
	}
	g := &gateway{t: t, Topology: topology, Daemon: d}
	t.Cleanup(func() {
		log := g.Log()
		if err := errors.Join(d.Close(), topology.Close()); err != nil {
			t.Error(err)
		}
		if t.Failed() {
			t.Logf("gatewayd said:\n%s", log)
		}
	})
	g.appsWire = listen(t, g.Apps.Namespace, g.Apps.Port)
	g.webWire = listen(t, g.Web.Namespace, g.Web.Port)
	return g
}

// start runs gatewayd and waits until everything that it was told of is there.
func (g *gateway) start() {
	g.t.Helper()
	must(g.t, g.Start())
	must(g.t, g.Await(soon(g.t), nil))
	g.follow()
}

// follow begins to collect the running daemon's events.
func (g *gateway) follow() {
	g.t.Helper()
	var err error
	g.events, err = follow(g.t, g.Client)
	must(g.t, err)
}

// stop ends the daemon with a signal, if it runs, and waits for it.
func (g *gateway) stop(signal syscall.Signal) {
	g.t.Helper()
	if err := g.Stop(signal); err != nil {
		g.t.Error(err)
	}
}

// restart ends the daemon with a signal, calls between, and starts it again.
func (g *gateway) restart(signal syscall.Signal, between func()) {
	g.t.Helper()
	g.stop(signal)
	between()
	g.start()
}

// run runs one verb of gatewayd to its end and returns its exit status.
func (g *gateway) run(args ...string) (out string, exit int) {
	g.t.Helper()
	out, exit, err := g.Run(soon(g.t), args...)
	must(g.t, err)
	return out, exit
}

// counts are the data plane's packets by place and reason, "web/forward".
type counts map[string]uint64

func (g *gateway) counts() counts {
	g.t.Helper()
	status, err := g.Client.Status(g.t.Context())
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
