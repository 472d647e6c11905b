package lab

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
}

func newTopology(t *testing.T, kind Kind) *Topology {
	t.Helper()
	needRoot(t)
	if kind == Guests {
		needGuests(t)
	}
	topology, err := NewTopology(t.Context(), kind, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := topology.Close(); err != nil {
			t.Error(err)
		}
	})
	return topology
}

// TestTopology_Guests boots all three guests. With an ordinary bridge as the
// gateway, TCP works between the switches and within one, with the guests'
// offloads as they come, here over IPv6; without one, nothing does.
func TestTopology_Guests(t *testing.T) {
	begin := time.Now()
	topology := newTopology(t, Guests)
	t.Logf("three guests are up after %v (%s)", time.Since(begin), Acceleration())
	ctx := deadline(t, 3*time.Minute)
	for _, host := range []*Host{topology.App2, topology.Web1} {
		server, err := host.Guest.Start(ctx, "server", "serve", "-tcp", "80")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := server.WaitLine(ctx, contains(`"serving":true`)); err != nil {
			t.Fatal(err)
		}
	}
	for _, target := range []*Host{topology.App2, topology.Web1} {
		t.Run("NothingForwards/"+target.Name, func(t *testing.T) {
			client, err := topology.App1.Guest.Start(ctx, "client", "connect", "-timeout", "2s", on(target, 80))
			if err != nil {
				t.Fatal(err)
			}
			if exit, err := client.Wait(ctx); err != nil || exit != 1 {
				t.Errorf("ended with %d, %v: %q", exit, err, client.Lines())
			}
		})
	}
	if err := topology.Gateway.AddBridge("throwaway", []string{"gw-apps", "gw-web"}, "gw-apps", "gw-web"); err != nil {
		t.Fatal(err)
	}
	for _, target := range []*Host{topology.App2, topology.Web1} {
		for _, direction := range []string{"-upload=false", "-upload"} {
			t.Run("BridgeForwards/"+target.Name+direction, func(t *testing.T) {
				address := netip.AddrPortFrom(target.V6.Addr(), 80).String()
				client, err := topology.App1.Guest.Start(ctx, "client", "transfer", direction, address, "300000", "0")
				if err != nil {
					t.Fatal(err)
				}
				exit, err := client.Wait(ctx)
				var last struct{ OK bool }
				if lines := client.Lines(); len(lines) > 0 {
					t.Log(lines[len(lines)-1])
					err = errors.Join(err, json.Unmarshal([]byte(lines[len(lines)-1]), &last))
				}
				if err != nil || exit != 0 || !last.OK {
					t.Errorf("ended with %d, %v: %q", exit, err, client.Lines())
				}
			})
		}
	}
}

// TestTopology_Namespaces is the same with namespaces for hosts, for IPv4 and
// IPv6, and with the workload as an ordinary program.
func TestTopology_Namespaces(t *testing.T) {
	topology := newTopology(t, Namespaces)
	if err := topology.Gateway.AddBridge("throwaway", []string{"gw-apps", "gw-web"}, "gw-apps", "gw-web"); err != nil {
		t.Fatal(err)
	}
	workload, err := BuildWorkload(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, host := range []*Host{topology.App2, topology.Web1} {
		startServer(t, host, workload)
	}
	for _, target := range []*Host{topology.App2, topology.Web1} {
		for _, address := range []string{target.V4.Addr().String(), target.V6.Addr().String()} {
			for _, args := range [][]string{{"connect"}, {"udp"}, {"transfer", "3000000", "0"}} {
				t.Run(target.Name+"/"+address+"/"+args[0], func(t *testing.T) {
					args := append([]string{args[0], net.JoinHostPort(address, "80")}, args[1:]...)
					out, err := topology.App1.Namespace.Command(deadline(t, time.Minute), workload, args...).CombinedOutput()
					if err != nil || !strings.Contains(string(out), `"ok":true`) {
						t.Errorf("%q: %v: %s", args, err, out)
					}
				})
			}
		}
	}
}

func startServer(t *testing.T, host *Host, workload string) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	server := host.Namespace.Command(ctx, workload, "serve", "-tcp", "80", "-udp", "80")
	out, err := server.StdoutPipe()
	if err == nil {
		err = server.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cancel(); _ = server.Wait() }) // ended by the signal
	ready := make([]byte, len(`{"pid"`))
	if _, err := io.ReadFull(out, ready); err != nil {
		t.Fatal(err)
	}
}

func TestLab_CloseRemovesEverything(t *testing.T) {
	topology := newTopology(t, Namespaces)
	made, err := filepath.Glob(namespaceDir + "/" + topology.name + "*")
	if err != nil || len(made) != 6 {
		t.Fatalf("there are %d namespaces: %q, %v", len(made), made, err)
	}
	if err := topology.Close(); err != nil {
		t.Fatal(err)
	}
	if left, _ := filepath.Glob(namespaceDir + "/" + topology.name + "*"); len(left) > 0 {
		t.Errorf("left: %q", left)
	}
}

func TestNew_RemovesLeftoversOfDeadProcesses(t *testing.T) {
	needRoot(t)
	dead := fmt.Sprintf("/dev/shm/vg%d-dead.ram", 1<<22+1) // over the largest pid there can be
	alive := fmt.Sprintf("/dev/shm/vg%d-alive.ram", os.Getppid())
	for _, path := range []string{dead, alive} {
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { os.Remove(path) })
	}
	lab, err := New(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer lab.Close()
	if _, err := os.Stat(dead); !errors.Is(err, os.ErrNotExist) {
		t.Error("what a dead process left is still there")
	}
	if _, err := os.Stat(alive); err != nil {
		t.Errorf("what a living process has was removed: %v", err)
	}
}

func TestNamespace_DoAndCommandAreInside(t *testing.T) {
	needRoot(t)
	lab, err := New(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer lab.Close()
	ns, err := lab.NewNamespace("one")
	if err != nil {
		t.Fatal(err)
	}
	outside := readNamespace(t)
	var inside string
	if err := ns.Do(func() error { inside = readNamespace(t); return nil }); err != nil {
		t.Fatal(err)
	}
	out, err := ns.Command(t.Context(), "sh", "-c", "readlink /proc/self/ns/net /proc/self/ns/mnt").Output()
	if err != nil {
		t.Fatal(err)
	}
	mount, err := os.Readlink("/proc/self/ns/mnt")
	if err != nil {
		t.Fatal(err)
	}
	if inside == outside || string(out) != inside+"\n"+mount+"\n" || readNamespace(t) != outside {
		t.Errorf("outside %s, Do %s, Command %q with mounts %s", outside, inside, out, mount)
	}
	if err := errors.Join(lab.Close(), lab.Close()); err != nil {
		t.Error(err)
	}
}

func TestNamespace_TapOnABridge(t *testing.T) {
	needRoot(t)
	lab, err := New(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer lab.Close()
	ns, err := lab.NewNamespace("one")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ns.AddTap("tap0"); err != nil {
		t.Fatal(err)
	}
	if err := ns.AddBridge("br0", []string{"tap0"}); err != nil {
		t.Fatal(err)
	}
	link, err := ns.Netlink().LinkByName("tap0")
	if err != nil || link.Attrs().MasterIndex == 0 {
		t.Errorf("got %+v, %v", link, err)
	}
}

func readNamespace(t *testing.T) string {
	t.Helper()
	name, err := os.Readlink("/proc/thread-self/ns/net")
	if err != nil {
		t.Error(err)
	}
	return name
}

func contains(part string) func(string) bool {
	return func(line string) bool { return strings.Contains(line, part) }
}

func on(host *Host, port int) string {
	return fmt.Sprintf("%s:%d", host.V4.Addr(), port)
}
