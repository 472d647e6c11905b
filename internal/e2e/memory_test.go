package e2e_test

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/vmgate/vmgate/internal/event"
	"github.com/vmgate/vmgate/internal/lab"
)

// TestMemoryOfProcess: verdicts by processes of a guest whose RAM is in no file:
// it is read from QEMU itself, where its monitor says.
func TestMemoryOfProcess(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: a guest takes seconds to boot")
	}
	if err := lab.GuestSupport(""); err != nil {
		t.Skip(err)
	}
	g := newGateway(t)
	workload, err := lab.BuildWorkload(t.Context())
	must(t, err)
	// A name that no other test's guest has: machines are found by it.
	host, err := g.Apps.AddGuestAs(t.Context(), lab.Host{
		Name: fmt.Sprintf("priv%d", os.Getpid()), MAC: net.HardwareAddr{2, 0x77, 0, 0, 0, 0x13},
		V4: netip.MustParsePrefix("10.77.0.13/24"), V6: netip.MustParsePrefix("fd77::13/64"),
	}, lab.GuestConfig{Workload: workload, Backing: lab.Private, Monitor: true})
	must(t, err)
	g.write(setup{
		More:     []*lab.Host{host},
		Place:    map[string]string{host.Name: fmt.Sprintf("{process: {name: %s, monitor: %s}}", host.Name, host.Guest.Monitor())},
		Suspect:  suspectName,
		Failure:  "{introspection: drop, no-owner: drop}",
		Decision: "{deadline: 2s}", // the guest is emulated, and the machine busy
	})
	g.start()
	await(t, "the guest is understood", func() bool { return g.vm(host.Name).Memory == "ready" })
	serve(t, g.Web1, 80)
	for name, want := range map[string]string{"client": "forward", suspectName: "check"} {
		mark := g.events.mark()
		p := startIn(t, host.Guest, name, "connect", address(g.Web1, 80, false), "-timeout", "20s", "-hold", "1h")
		e := g.events.wait(t, mark, "the decision on "+name, func(e event.Event) bool { return e.Type == "decision" && e.SrcVM == host.Name && e.DestPort == 80 })
		if e.Verdict != want || e.SrcProcess == nil || int(e.SrcProcess.PID) != p.PID() || e.SrcProcess.Name != name {
			t.Errorf("%s, pid %d: decided %s (%s) by %+v", name, p.PID(), e.Verdict, e.Cause, e.SrcProcess)
		}
		end(t, p)
	}
}

// checkNotUnderstood wipes what the guest's kernel tells of its types, and starts
// the daemon anew: it says that it cannot look into the guest, and why, and decides
// by failure.introspection.
func (g *gateway) checkNotUnderstood(t *testing.T, guest *lab.Guest) {
	ram, err := os.OpenFile(guest.MemoryFile(), os.O_RDWR, 0)
	must(t, err)
	defer ram.Close()
	size, err := ram.Seek(0, 2)
	must(t, err)
	memory, err := syscall.Mmap(int(ram.Fd()), 0, int(size), syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_SHARED)
	must(t, err)
	defer syscall.Munmap(memory)
	head := []byte{0x9f, 0xeb, 1, 0, 24, 0, 0, 0, 0, 0, 0, 0} // struct btf_header (include/uapi/linux/btf.h)
	wiped := 0
	for at := bytes.Index(memory, head); at >= 0; at = bytes.Index(memory, head) {
		clear(memory[at : at+len(head)])
		wiped++
	}
	if wiped == 0 {
		t.Fatal("its kernel tells no types")
	}
	g.restart(syscall.SIGTERM, func() {})
	await(t, "the guest is not understood", func() bool {
		vm := g.vm("app3")
		return vm.Memory == "failing" && strings.Contains(vm.Detail, "not understood") && strings.Contains(vm.Detail, "BTF")
	})
	if out, exit := g.run("vms", "--socket", g.Socket()); !strings.Contains(out, "failing") || !strings.Contains(out, "BTF") {
		t.Errorf("gatewayd vms ended with %d and does not say so:\n%s", exit, out)
	}
	mark := g.events.mark()
	p := startIn(t, guest, "client", "connect", address(g.Web1, 80, false), "-n", "0", "-every", "500ms", "-timeout", "1s")
	e := g.events.wait(t, mark, "the decision", func(e event.Event) bool {
		return e.Type == "decision" && e.SrcVM == "app3" && e.DestPort == 80 && e.SrcProcess == nil
	})
	if e.Verdict != "check" || !strings.HasPrefix(e.Cause, "introspection") {
		t.Errorf("decided %s (%s), want what failure.introspection says", e.Verdict, e.Cause)
	}
	end(t, p)
}
