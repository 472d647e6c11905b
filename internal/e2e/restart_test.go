package e2e_test

import (
	"fmt"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/vmgate/vmgate/internal/api"
)

// TestRestart: decided flows go on without the daemon, new ones wait for it or,
// where the operator chose so, pass; afterwards everything is as it was.
func TestRestart(t *testing.T) {
	for _, c := range []struct {
		signal syscall.Signal
		knob   string
	}{{syscall.SIGTERM, "closed"}, {syscall.SIGKILL, "closed"}, {syscall.SIGKILL, "open"}} {
		t.Run(fmt.Sprintf("%v/%s", c.signal, c.knob), func(t *testing.T) {
			g := namespaced(t, setup{Failure: "{daemon: " + c.knob + "}"})
			web := serve(t, g.Web1, 80)
			stream := newStream(t, g.App1, web, false)
			six := newStream(t, g.App1, web, true)
			before := g.flowOf("app1", stream.source)
			if before.Rule != "web" || before.Verdict != "forward" {
				t.Errorf("the stream is %s by rule %q", before.Verdict, before.Rule)
			}
			g.restart(c.signal, func() {
				stream.moves(t)
				six.moves(t)
				g.withoutDaemon(t, c.knob == "open")
				stream.moves(t)
			})
			after := g.flowOf("app1", stream.source)
			if after.Rule != before.Rule || after.Verdict != before.Verdict || after.Age < before.Age || after.Src.Packets < before.Src.Packets {
				t.Errorf("adopted flow:\n before %+v\n after  %+v", before, after)
			}
			decided := newProbe(g.App1, g.Web1, 80)
			g.first(t, decided, false)
			g.webWire.wait(t, "a new flow, decided", carries(decided.payload))
			for _, s := range []*tcpStream{stream, six} {
				s.moves(t)
				if n := s.finish(t); n > 0 {
					t.Errorf("%d segments were lost", n)
				}
			}
		})
	}
}

// withoutDaemon tries new flows while no daemon runs. The first two seconds the
// kernel still counts on it.
func (g *gateway) withoutDaemon(t *testing.T, open bool) {
	t.Helper()
	if open {
		await(t, "a new flow passes without the daemon", func() bool {
			p := newProbe(g.App1, g.Web1, 80)
			p.send(t)
			return len(g.webWire.seen(carries(p.payload))) > 0
		})
		return
	}
	var sent []probe
	for deadline := time.Now().Add(3 * time.Second); time.Now().Before(deadline); time.Sleep(100 * time.Millisecond) {
		p := newProbe(g.App1, g.Web1, 80)
		p.send(t)
		sent = append(sent, p)
	}
	for _, p := range sent {
		if len(g.webWire.seen(carries(p.payload))) > 0 {
			t.Errorf("passed without the daemon: %s", p)
		}
	}
}

// flowOf finds the decided flow from a source port of a VM.
func (g *gateway) flowOf(vm string, source int) api.Flow {
	g.t.Helper()
	flows, err := g.Client.Flows(g.t.Context())
	must(g.t, err)
	i := slices.IndexFunc(flows, func(f api.Flow) bool { return f.Src.VM == vm && int(f.Src.Port) == source })
	if i < 0 {
		g.t.Fatalf("there is no flow from port %d of %s among %+v", source, vm, flows)
	}
	return flows[i]
}

// TestRestart_MeasuresOutliveAKill: what was decided an instant before the
// daemon is killed stands when it comes back.
func TestRestart_MeasuresOutliveAKill(t *testing.T) {
	g := namespaced(t, setup{})
	absorb(t, g.Web1, 80)
	allowed := newProbe(g.App2, g.Web1, 80)
	g.passes(t, g.webWire, allowed)
	must(t, g.Client.Measure(t.Context(), api.Measure{Action: "isolate", VM: "app2"}))
	g.restart(syscall.SIGKILL, func() {})
	before := g.counts()
	after := allowed.again()
	after.send(t)
	fresh := newProbe(g.App2, g.Web1, 80)
	fresh.send(t)
	g.awaitCount(t, before, "apps/drop-verdict", 2)
	g.fence(t, g.webWire, g.App1)
	for _, p := range []probe{after, fresh} {
		if len(g.webWire.seen(carries(p.payload))) > 0 {
			t.Errorf("passed: %s", p)
		}
	}
	if vm := g.vm("app2"); vm.Verdict != "drop" || vm.Cause != "operator" {
		t.Errorf("app2 is %s (%s)", vm.Verdict, vm.Cause)
	}
}

func (g *gateway) vm(id string) api.VM {
	g.t.Helper()
	vms, err := g.Client.VMs(g.t.Context())
	must(g.t, err)
	i := slices.IndexFunc(vms, func(vm api.VM) bool { return vm.ID == id })
	if i < 0 {
		g.t.Fatalf("there is no VM %s", id)
	}
	return vms[i]
}

// TestRestart_TeardownAfterAKillLeavesNothing: also not the engine, which goes
// on inspecting without a daemon.
func TestRestart_TeardownAfterAKillLeavesNothing(t *testing.T) {
	g := namespaced(t, setup{IDS: harmlessRule})
	g.stop(syscall.SIGKILL)
	if out, exit := g.run("teardown", "--config", g.Config); exit != 0 {
		t.Errorf("teardown ended with %d: %s", exit, out)
	}
	g.wantNothingLeft(t)
}

// TestSecondDaemon_IsRefused: the first one's lock is on the state.
func TestSecondDaemon_IsRefused(t *testing.T) {
	g := namespaced(t, setup{})
	web := serve(t, g.Web1, 80)
	stream := newStream(t, g.App1, web, false)
	out, exit := g.run("run", "--config", g.Config)
	if exit == 0 || !containsAll(out, "state.db", "gatewayd") {
		t.Errorf("the second daemon ended with %d: %s", exit, out)
	}
	stream.moves(t)
	decided := newProbe(g.App1, g.Web1, 80)
	g.first(t, decided, false)
	g.webWire.wait(t, "a new flow, decided by the first daemon", carries(decided.payload))
	if n := stream.finish(t); n > 0 {
		t.Errorf("%d segments were lost", n)
	}
	status, err := g.Client.Status(t.Context())
	if err != nil || status.PID != g.PID() {
		t.Errorf("the socket is pid %d's: %v", status.PID, err)
	}
}
