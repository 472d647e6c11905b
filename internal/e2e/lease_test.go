package e2e_test

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vmgate/vmgate/internal/api"
	"github.com/vmgate/vmgate/internal/event"
	"github.com/vmgate/vmgate/internal/lab"
)

const leaseConfiguration = `gateway: {pins: %s, state: %s/state, run: %[2]s/run}
segments:
  - {name: apps, vnic: gw-apps, reflect: true}
  - {name: web, vnic: gw-web}
vms:
  - {id: app1, segment: apps, macs: ["%s"], addresses: {learn: true}}
  - {id: app2, segment: apps, macs: ["%s"], addresses: {learn: true}}
  - {id: absent, segment: apps, macs: ["02:77:00:00:00:99"], addresses: {static: [10.77.0.30]}}
routers:
  - {id: dhcp1, segment: web, macs: ["%s"], addresses: [10.77.0.21], dhcp: true}
policy: {default: allow}
`

// leaseTime is long enough for what a test does while the lease lasts.
const leaseTime = 20 * time.Second

const serverConfiguration = `start 10.77.0.100
end 10.77.0.101
interface eth0
min_lease 5
lease_file %s
pidfile %s
opt subnet 255.255.255.0
opt lease %d
static_lease %s 10.77.0.100
static_lease %s 10.77.0.30
`

// leased makes a gateway whose VMs app1 and app2 learn their addresses, and runs a
// DHCP server on web1, which is to give app1 10.77.0.100, and app2 the address of
// another VM.
func leased(t *testing.T) *gateway {
	t.Helper()
	if _, err := os.Stat(busybox()); err != nil {
		t.Skip("no busybox for the DHCP server and its clients: scripts/install-deps.sh puts it there")
	}
	g := newGateway(t)
	g.writeText(fmt.Sprintf(leaseConfiguration, g.Pins, g.Dir, g.App1.MAC, g.App2.MAC, g.Web1.MAC))
	g.start()
	dir := t.TempDir()
	config, leases := dir+"/udhcpd.conf", dir+"/leases"
	must(t, os.WriteFile(leases, nil, 0o644))
	text := fmt.Sprintf(serverConfiguration, leases, dir+"/pid", int(leaseTime.Seconds()), g.App1.MAC, g.App2.MAC)
	must(t, os.WriteFile(config, []byte(text), 0o644))
	server := g.Web1.Namespace.Command(t.Context(), busybox(), "udhcpd", "-f", config)
	must(t, server.Start())
	t.Cleanup(func() { _ = server.Process.Kill(); _ = server.Wait() })
	return g
}

// busybox has a DHCP server and a client.
func busybox() string { return filepath.Join(lab.DefaultKernel(), "busybox") }

// askLease runs a DHCP client until it has a lease.
func askLease(t *testing.T, host *lab.Host) {
	t.Helper()
	client := host.Namespace.Command(soon(t), busybox(), "udhcpc", "-i", host.Interface, "-f", "-n", "-q", "-t", "8", "-T", "2", "-s", "/bin/true")
	if out, err := client.CombinedOutput(); err != nil {
		t.Fatalf("no lease: %v\n%s", err, out)
	}
}

// learned finds what a VM has learned of an address.
func (g *gateway) learned(vm, addr string) (api.Learned, bool) {
	g.t.Helper()
	learned := g.vm(vm).Learned
	i := slices.IndexFunc(learned, func(l api.Learned) bool { return l.Address == addr })
	if i < 0 {
		return api.Learned{}, false
	}
	return learned[i], true
}

func speaksAs(from, to *lab.Host, addr string) probe {
	p := newProbe(from, to, 80)
	p.fakeSource = net.ParseIP(addr).To4()
	return p
}

// TestLeases: an address that a DHCP server gives a VM is the VM's while the lease
// lasts, whoever had claimed it before; a daemon that is killed meanwhile knows it
// still, and when it is over address and flows are gone.
func TestLeases(t *testing.T) {
	g := leased(t)
	const addr = "10.77.0.100"
	squatter := speaksAs(g.App2, g.Web1, addr)
	g.passes(t, g.webWire, squatter)
	if l, ok := g.learned("app2", addr); !ok || l.From != "claim" {
		t.Errorf("app2 has claimed %+v", l)
	}
	mark := g.events.mark()
	askLease(t, g.App1)
	g.events.wait(t, mark, "the lease", func(e event.Event) bool {
		return e.SrcVM == "app1" && e.SrcIP == addr && strings.Contains(e.Message, "leased by dhcp1")
	})
	first, ok := g.learned("app1", addr)
	if !ok || first.From != "lease" || first.Server != "dhcp1" || first.Until == nil || time.Until(*first.Until) > leaseTime {
		t.Fatalf("app1 has %+v", first)
	}
	if l, ok := g.learned("app2", addr); ok {
		t.Errorf("app2 still has %+v", l)
	}
	await(t, "app2's flows by the address end", func() bool { return !g.hasFlow(t, "app2", addr) })
	mark = g.events.mark()
	speaksAs(g.App2, g.Web1, addr).send(t)
	g.events.wait(t, mark, "the spoof", func(e event.Event) bool { return e.Type == "spoof" && e.SrcVM == "app2" })

	g.passes(t, g.webWire, speaksAs(g.App1, g.Web1, addr))
	askLease(t, g.App1)
	var renewed api.Learned
	await(t, "the lease is renewed", func() bool {
		renewed, ok = g.learned("app1", addr)
		return ok && renewed.From == "lease" && renewed.Until.After(*first.Until)
	})
	g.restart(syscall.SIGKILL, func() {})
	if l, ok := g.learned("app1", addr); !ok || l.Until == nil || !l.Until.Equal(*renewed.Until) {
		t.Errorf("after a restart app1 has %+v, before %+v", l, renewed)
	}
	out, exit := g.run("vms", "--socket", g.Socket())
	if exit != 0 || !strings.Contains(out, addr+" (dhcp1 until ") {
		t.Errorf("gatewayd vms (%d) says:\n%s", exit, out)
	}
	deadline := time.Now().Add(leaseTime + patience)
	for _, ok = g.learned("app1", addr); ok || g.hasFlow(t, "app1", addr); _, ok = g.learned("app1", addr) {
		if time.Now().After(deadline) {
			t.Fatal("the lease does not end")
		}
		time.Sleep(100 * time.Millisecond)
	}
	if time.Now().Before(*renewed.Until) {
		t.Errorf("it ended before %s", renewed.Until)
	}
}

// TestLeases_OfConfiguredAddressesAreRefused: a server cannot give away what the
// configuration says is another's.
func TestLeases_OfConfiguredAddressesAreRefused(t *testing.T) {
	g := leased(t)
	mark := g.events.mark()
	askLease(t, g.App2)
	g.events.wait(t, mark, "the refusal", func(e event.Event) bool {
		return e.SrcVM == "app2" && e.SrcIP == "10.77.0.30" && strings.Contains(e.Message, "configured for absent")
	})
	if l, ok := g.learned("app2", "10.77.0.30"); ok {
		t.Errorf("app2 has %+v", l)
	}
	mark = g.events.mark()
	speaksAs(g.App2, g.Web1, "10.77.0.30").send(t)
	g.events.wait(t, mark, "the spoof", func(e event.Event) bool { return e.Type == "spoof" && e.SrcVM == "app2" })
}

// hasFlow says whether a VM has a flow by an address.
func (g *gateway) hasFlow(t *testing.T, vm, addr string) bool {
	t.Helper()
	flows, err := g.Client.Flows(t.Context())
	must(t, err)
	return slices.ContainsFunc(flows, func(f api.Flow) bool { return f.Src.VM == vm && f.Src.Addr == addr })
}
