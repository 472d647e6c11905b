package e2e_test

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/vmgate/vmgate/internal/event"
	"github.com/vmgate/vmgate/internal/lab"
)

// inspectorPort is free in every gateway's own namespace.
const inspectorPort = "9141"

// inspected is a gateway that reads a guest by an inspector, which runs in its
// namespace and stands for one on another host.
type inspected struct {
	*gateway
	guest   *lab.Guest
	host    *lab.Host
	command *exec.Cmd
	ended   chan struct{}
}

// certificates makes those of the documentation, by its own lines.
func (g *gateway) certificates() {
	g.t.Helper()
	if _, err := exec.LookPath("openssl"); err != nil {
		g.t.Skip("openssl is not installed")
	}
	page, err := os.ReadFile("../../docs/memory-sources.md")
	must(g.t, err)
	found := regexp.MustCompile("(?s)# An authority, once.*?\n```").Find(page)
	if found == nil {
		g.t.Fatal("docs/memory-sources.md does not say how to make certificates")
	}
	script := strings.ReplaceAll(strings.TrimSuffix(string(found), "```"), "hv1.example.org", "localhost")
	for _, gateway := range []string{"gateway", "stranger"} {
		// The second run makes one more gateway, which the inspector does not know.
		lines := script
		if gateway == "stranger" {
			lines = lines[strings.Index(lines, "# A gateway"):]
			lines = strings.NewReplacer("gw1.example.org", "gw9.example.org", "gateway.", "stranger.").Replace(lines)
		}
		command := exec.Command("sh", "-e", "-c", lines)
		command.Dir = g.Dir
		if out, err := command.CombinedOutput(); err != nil {
			g.t.Fatalf("the lines of the documentation fail: %v\n%s", err, out)
		}
	}
}

func (i *inspected) startInspector(t *testing.T) {
	t.Helper()
	log, err := os.OpenFile(i.File("inspector.log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	must(t, err)
	defer log.Close()
	i.command = i.Gateway.Command(context.Background(), gatewayd, "inspector", "run", "--config", i.File("inspector.yaml"))
	i.command.Stdout, i.command.Stderr = log, log
	must(t, i.command.Start())
	command, ended := i.command, make(chan struct{})
	i.ended = ended
	go func() {
		_ = command.Wait()
		close(ended)
	}()
}

func (i *inspected) killInspector() {
	_ = i.command.Process.Kill()
	<-i.ended
}

// place is the guest's memory in the gateway's configuration.
func (i *inspected) place(vm, certificate string) map[string]string {
	return map[string]string{i.host.Name: fmt.Sprintf("{inspector: {address: \"localhost:%s\", vm: %s, certificate: %s.crt, key: %[3]s.key, ca: ca.crt}}", inspectorPort, vm, certificate)}
}

func (i *inspected) setup(vm, certificate string) setup {
	return setup{
		More: []*lab.Host{i.host}, Place: i.place(vm, certificate),
		Failure: "{introspection: drop}", Decision: "{deadline: 1s}", // the guest is emulated, and the machine busy
	}
}

func inspectedGateway(t *testing.T) *inspected {
	t.Helper()
	if testing.Short() {
		t.Skip("-short: a guest takes seconds to boot")
	}
	if err := lab.GuestSupport(""); err != nil {
		t.Skip(err)
	}
	i := &inspected{gateway: newGateway(t)}
	i.certificates()
	workload, err := lab.BuildWorkload(t.Context())
	must(t, err)
	// A name that no other test's guest has: machines are found by it.
	i.host, err = i.Apps.AddGuest(t.Context(), lab.Host{
		Name: fmt.Sprintf("insp%d", os.Getpid()), MAC: net.HardwareAddr{2, 0x77, 0, 0, 0, 0x13},
		V4: netip.MustParsePrefix("10.77.0.13/24"), V6: netip.MustParsePrefix("fd77::13/64"),
	}, workload, nil)
	must(t, err)
	i.guest = i.host.Guest
	must(t, os.WriteFile(i.File("inspector.yaml"), fmt.Appendf(nil, `listen: 127.0.0.1:%s
certificate: inspector.crt
key: inspector.key
client-ca: ca.crt
clients: [{name: gw1.example.org, vms: [%s]}, {name: gw2.example.org, vms: [another]}]
`, inspectorPort, i.host.Name), 0o600))
	i.startInspector(t)
	t.Cleanup(func() {
		i.killInspector()
		if t.Failed() {
			log, _ := os.ReadFile(i.File("inspector.log"))
			t.Logf("the inspector said:\n%s", log)
		}
	})
	i.write(i.setup(i.host.Name, "gateway"))
	i.start()
	return i
}

func (i *inspected) awaitMemory(t *testing.T, state, detail string) {
	t.Helper()
	await(t, "the guest is "+state+" "+detail, func() bool {
		vm := i.vm(i.host.Name)
		return vm.Memory == state && strings.Contains(vm.Detail, detail)
	})
}

// decided opens a connection in the guest, and returns what was decided on it.
func (i *inspected) decided(t *testing.T) (e event.Event, pid int) {
	t.Helper()
	mark := i.events.mark()
	p := startIn(t, i.guest, "client", "connect", address(i.Web1, 80, false), "-timeout", "20s", "-hold", "1h")
	defer end(t, p)
	return i.events.wait(t, mark, "the decision", func(e event.Event) bool {
		return e.Type == "decision" && e.SrcVM == i.host.Name && e.DestPort == 80
	}), p.PID()
}

// byProcess opens a connection that is decided by its process.
func (i *inspected) byProcess(t *testing.T) {
	t.Helper()
	if e, pid := i.decided(t); e.Verdict != "forward" || e.SrcProcess == nil || int(e.SrcProcess.PID) != pid || e.SrcProcess.Name != "client" {
		t.Errorf("decided %s (%s) by %+v, want by pid %d", e.Verdict, e.Cause, e.SrcProcess, pid)
	}
}

// byKnob opens a connection that is decided without its process.
func (i *inspected) byKnob(t *testing.T) {
	t.Helper()
	if e, _ := i.decided(t); e.Verdict != "drop" || e.SrcProcess != nil {
		t.Errorf("decided %s (%s) by %+v, want what failure.introspection says", e.Verdict, e.Cause, e.SrcProcess)
	}
}

// TestInspector: verdicts by processes that another daemon sees.
func TestInspector(t *testing.T) {
	i := inspectedGateway(t)
	serve(t, i.Web1, 80)
	i.awaitMemory(t, "ready", "")
	i.byProcess(t)

	t.Run("itHasGivenUpItsPrivileges", func(t *testing.T) {
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", i.command.Process.Pid))
		must(t, err)
		// Bits 2 and 19: CAP_DAC_READ_SEARCH and CAP_SYS_PTRACE.
		for _, line := range []string{"CapPrm:\t0000000000080004", "CapBnd:\t0000000000080004", "NoNewPrivs:\t1"} {
			if !strings.Contains(string(status), line) {
				t.Errorf("no %q in\n%s", line, status)
			}
		}
	})
	t.Run("aSlowOneIsTheKnobsCase", func(t *testing.T) {
		must(t, i.command.Process.Signal(syscall.SIGSTOP))
		i.byKnob(t)
		must(t, i.command.Process.Signal(syscall.SIGCONT))
		i.awaitMemory(t, "ready", "")
		i.byProcess(t)
	})
	t.Run("aDeadOneIsTheKnobsCase", func(t *testing.T) {
		i.killInspector()
		i.awaitMemory(t, "failing", "connection refused")
		i.byKnob(t)
		i.startInspector(t)
		i.awaitMemory(t, "ready", "")
		i.byProcess(t)
	})
	t.Run("aStrangersCertificateIsRefused", func(t *testing.T) {
		i.reload(t, true, i.setup(i.host.Name, "stranger"))
		i.awaitMemory(t, "failing", "certificate")
		i.byKnob(t)
	})
	t.Run("aVMOfAnotherGatewayIsRefused", func(t *testing.T) {
		i.reload(t, true, i.setup("another", "gateway"))
		i.awaitMemory(t, "failing", "does not serve this VM to this client")
		i.byKnob(t)
	})
	t.Run("itLooksIntoItAgain", func(t *testing.T) {
		i.reload(t, true, i.setup(i.host.Name, "gateway"))
		i.awaitMemory(t, "ready", "")
		i.byProcess(t)
	})
	t.Run("theHostsListNamesTheGuest", func(t *testing.T) {
		out, exit := i.run("inspector", "guests")
		if exit != 0 || !strings.Contains(out, i.host.Name) || !strings.Contains(out, i.guest.MemoryFile()) {
			t.Errorf("exit %d:\n%s", exit, out)
		}
	})
}
