package bench_test

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vmgate/vmgate/internal/lab"
	"github.com/vmgate/vmgate/internal/lab/daemon"
	"github.com/vmgate/vmgate/pkg/loader"
)

// inspected is a configuration with an engine, for what goes to port 443.
const inspected = `gateway:
  pins: PINS
  state: DIR/state
  run: DIR/run
segments:
  - {name: apps, vnic: gw-apps, subnets: [10.77.0.0/24], reflect: true}
  - {name: web, vnic: gw-web, subnets: [10.77.0.0/24]}
vms:
  - {id: app1, segment: apps, macs: ["02:77:00:00:00:11"], addresses: {static: [10.77.0.11]}}
  - {id: web1, segment: web, macs: ["02:77:00:00:00:21"], addresses: {static: [10.77.0.21]}}
policy:
  default: deny
  rules:
    - {name: inspect, to: {vm: web1}, protocol: udp, ports: [443], action: check}
    - {name: allow, to: {vm: web1}, protocol: udp, ports: [80], action: allow}
ids:
  engine: suricata
  rules: [DIR/local.rules]
`

// gateway is a topology with gatewayd, which can be stopped and started.
type gateway struct {
	*lab.Topology
	*daemon.Daemon
	b  *testing.B
	dp *loader.Dataplane // the maps, beside the daemon
}

// newGateway starts gatewayd with a configuration, and rules for its engine if it
// has one.
func newGateway(b *testing.B, configuration, rules string) *gateway {
	b.Helper()
	if _, err := exec.LookPath("suricata"); err != nil && rules != "" {
		b.Skip("no suricata here: ", err)
	}
	topology, err := lab.NewTopology(b.Context(), lab.Namespaces, nil)
	must(b, err)
	b.Cleanup(func() { must(b, topology.Close()) })
	program, err := daemon.Build(b.Context(), b.TempDir())
	must(b, err)
	d, err := daemon.New(topology.Gateway, program)
	must(b, err)
	g := &gateway{b: b, Topology: topology, Daemon: d}
	b.Cleanup(func() {
		log := d.Log()
		if err := d.Close(); err != nil {
			b.Error(err)
		}
		if b.Failed() {
			b.Logf("gatewayd said:\n%s", log)
		}
	})
	text := strings.NewReplacer("PINS", g.Pins, "DIR", g.Dir).Replace(configuration)
	must(b, os.WriteFile(g.Config, []byte(text), 0o600))
	must(b, os.WriteFile(g.File("local.rules"), []byte(rules), 0o600))
	g.start()
	g.dp, err = loader.Open(loader.Options{Pins: g.Pins})
	must(b, err)
	b.Cleanup(func() { g.dp.Close() })
	return g
}

// start runs gatewayd until it is stopped, and waits until packets can go through
// the engine.
func (g *gateway) start() {
	g.b.Helper()
	ctx, cancel := context.WithTimeout(g.b.Context(), time.Minute)
	defer cancel()
	must(g.b, g.Start())
	must(g.b, g.Await(ctx, nil))
}

func (g *gateway) stop() {
	g.b.Helper()
	must(g.b, g.Stop(syscall.SIGTERM))
}

// vm is the number of a VM in the maps.
func (g *gateway) vm(name string) uint32 {
	g.b.Helper()
	vms := g.dp.VMs()
	for id, vm := range vms.All() {
		if vm.Name == name {
			return id
		}
	}
	g.b.Fatalf("no VM %s in the maps (%v)", name, vms.Err())
	return 0
}

// absorb takes UDP in on a port of a host, so that its kernel answers nothing.
func (g *gateway) absorb(h *lab.Host, port int) {
	g.b.Helper()
	must(g.b, h.Namespace.Do(func() error {
		conn, err := net.ListenPacket("udp", fmt.Sprintf(":%d", port))
		if err == nil {
			g.b.Cleanup(func() { conn.Close() })
		}
		return err
	}))
}
