package bench_test

import (
	"context"
	"crypto/rand"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vmgate/vmgate/internal/api"
	"github.com/vmgate/vmgate/internal/lab"
	"github.com/vmgate/vmgate/pkg/loader"
)

const configuration = `gateway:
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
	b        *testing.B
	dir      string
	pins     string
	gatewayd string
	client   *api.Client
	dp       *loader.Dataplane // the maps, beside the daemon

	command *exec.Cmd
}

func newGateway(b *testing.B, rules string) *gateway {
	b.Helper()
	if os.Geteuid() != 0 {
		b.Skip("needs root: network namespaces and BPF programs")
	}
	if _, err := exec.LookPath("suricata"); err != nil {
		b.Skip("no suricata here: ", err)
	}
	dir, err := os.MkdirTemp("", "vmgate-bench-") // short: there are sockets in it
	must(b, err)
	g := &gateway{
		b: b, dir: dir, gatewayd: filepath.Join(dir, "gatewayd"),
		pins:   fmt.Sprintf("/sys/fs/bpf/vb%d-%s", os.Getpid(), strings.ToLower(rand.Text()[:6])),
		client: api.NewClient(filepath.Join(dir, "run", "gatewayd.sock")),
	}
	b.Cleanup(func() { os.RemoveAll(dir) })
	if out, err := exec.Command("go", "build", "-trimpath", "-o", g.gatewayd, "../../cmd/gatewayd").CombinedOutput(); err != nil {
		b.Fatalf("cannot build gatewayd: %v: %s", err, out)
	}
	text := strings.NewReplacer("PINS", g.pins, "DIR", dir).Replace(configuration)
	must(b, os.WriteFile(g.file("gateway.yaml"), []byte(text), 0o600))
	must(b, os.WriteFile(g.file("local.rules"), []byte(rules), 0o600))
	g.Topology, err = lab.NewTopology(b.Context(), lab.Namespaces, nil)
	must(b, err)
	b.Cleanup(func() {
		g.stop()
		out, err := g.Gateway.Command(context.Background(), g.gatewayd, "teardown", "--config", g.file("gateway.yaml")).CombinedOutput()
		if err != nil {
			b.Errorf("cannot tear down: %v: %s", err, out)
		}
		if g.dp != nil {
			g.dp.Close()
		}
		if err := g.Close(); err != nil {
			b.Error(err)
		}
		if b.Failed() {
			log, _ := os.ReadFile(g.file("gatewayd.log"))
			b.Logf("gatewayd said:\n%s", log[max(0, len(log)-4096):])
		}
	})
	g.start()
	g.dp, err = loader.Open(loader.Options{Pins: g.pins})
	must(b, err)
	return g
}

func (g *gateway) file(name string) string { return filepath.Join(g.dir, name) }

// start runs gatewayd until stop, and waits until packets can go through the engine.
func (g *gateway) start() {
	g.b.Helper()
	log, err := os.OpenFile(g.file("gatewayd.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	must(g.b, err)
	defer log.Close() // the daemon has its own descriptor
	g.command = g.Gateway.Command(context.Background(), g.gatewayd, "run", "--config", g.file("gateway.yaml"))
	g.command.Stdout, g.command.Stderr = log, log
	must(g.b, g.command.Start())
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
		status, err := g.client.Status(g.b.Context())
		if err == nil && status.PID == g.command.Process.Pid && status.IDS.State == "up" {
			return
		}
		if time.Now().After(deadline) {
			g.b.Fatal("gatewayd is not up")
		}
	}
}

func (g *gateway) stop() {
	if g.command != nil {
		_ = g.command.Process.Signal(syscall.SIGTERM) // it may have ended already
		_ = g.command.Wait()
		g.command = nil
	}
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
