package e2e_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vmgate/vmgate/internal/api"
	"github.com/vmgate/vmgate/internal/event"
	"github.com/vmgate/vmgate/internal/lab"
	"github.com/vmgate/vmgate/pkg/vmi"
	"github.com/vmgate/vmgate/pkg/vmi/vmitest"
)

const suspectName = "suspectkid"

// guestGateway is a gateway with a real guest, app3, behind it, whose memory it
// reads.
func guestGateway(t *testing.T) (*gateway, *lab.Guest) {
	t.Helper()
	return guestGatewayWith(t, setup{Suspect: suspectName})
}

func guestGatewayWith(t *testing.T, s setup) (*gateway, *lab.Guest) {
	t.Helper()
	if testing.Short() {
		t.Skip("-short: a guest takes seconds to boot")
	}
	if err := lab.GuestSupport(""); err != nil {
		t.Skip(err)
	}
	g := newGateway(t)
	workload, err := lab.BuildWorkload(t.Context())
	must(t, err)
	host, err := g.Apps.AddGuest(t.Context(), lab.Host{
		Name: "app3", MAC: net.HardwareAddr{2, 0x77, 0, 0, 0, 0x13},
		V4: netip.MustParsePrefix("10.77.0.13/24"), V6: netip.MustParsePrefix("fd77::13/64"),
	}, workload, nil)
	must(t, err)
	s.More, s.Memory = []*lab.Host{host}, map[string]string{"app3": host.Guest.MemoryFile()}
	s.Metrics = metricsAddress
	s.Decision = "{deadline: 2s}" // the guest is emulated, and the machine busy
	g.write(s)
	g.start()
	await(t, "app3 is understood", func() bool { return g.vm("app3").Memory == "ready" })
	return g, host.Guest
}

// TestGuest: verdicts that come from what is in a real guest's memory.
func TestGuest(t *testing.T) {
	g, guest := guestGateway(t)
	serve(t, g.Web1, 80)
	absorb(t, g.Web1, 80)

	for _, six := range []bool{false, true} {
		name := "itsProcessIsTheOneThatTheGuestNames/IPv4"
		if six {
			name = "itsProcessIsTheOneThatTheGuestNames/IPv6"
		}
		t.Run(name, func(t *testing.T) {
			mark := g.events.mark()
			p := startIn(t, guest, "client", "connect", address(g.Web1, 80, six), "-hold", "1h")
			e := g.events.wait(t, mark, "the decision", func(e event.Event) bool { return e.Type == "decision" && e.SrcVM == "app3" })
			if e.Verdict != "forward" || e.SrcProcess == nil {
				t.Fatalf("decided %+v", e)
			}
			await(t, "its connection is there", func() bool { return g.flowOf("app3", int(e.SrcPort)).Dst.Packets > 1 })
			if out, exit := g.run("owner", "app3", "tcp", fmt.Sprint(e.SrcPort), "--socket", g.Socket()); exit != 0 || !strings.Contains(out, fmt.Sprint(p.PID())) {
				t.Errorf("gatewayd owner ended with %d: %s", exit, out)
			}
			said := ask(t, guest, fmt.Sprintf("cat /proc/%d/comm; readlink /proc/%[1]d/exe; ls -l /proc/%[1]d/fd | grep -c socket:", p.PID()))
			seen := fmt.Sprintf("%s\n%s\n", e.SrcProcess.Name, e.SrcProcess.Path)
			if int(e.SrcProcess.PID) != p.PID() || !strings.HasPrefix(said, seen) || strings.HasSuffix(said, "\n0\n") {
				t.Errorf("the gateway names pid %d: %q; the guest says of pid %d: %q", e.SrcProcess.PID, seen, p.PID(), said)
			}
		})
	}
	t.Run("oneOfThoseWhoShareASocketIsSuspect", func(t *testing.T) { g.checkShared(t, guest) })
	t.Run("aHiddenProcessIsChecked", func(t *testing.T) { g.checkHidden(t, guest) })
	t.Run("aConvictionOutlivesAKillBeforeItWasStored", func(t *testing.T) { g.checkConviction(t, guest) })
	t.Run("whatNoSocketExplainsHasItsCandidateNamed", func(t *testing.T) { g.checkForged(t, guest) })
	t.Run("aPortIsJudgedAnewWithItsNewHolder", func(t *testing.T) { g.checkReuse(t, guest) })
	t.Run("anotherMemoryFileAtItsPathIsAnotherGuest", func(t *testing.T) { g.checkReplaced(t, guest) })
	t.Run("itsStringsReachNobodyAsTheyAre", func(t *testing.T) { g.checkStrings(t, guest) })
	t.Run("aKernelThatDoesNotTellItsTypesIsNotUnderstood", func(t *testing.T) { g.checkNotUnderstood(t, guest) }) // the last: it stays so
}

// checkReplaced plays a machine that was switched off and on: QEMU makes a new
// file then. The old one must not answer for it.
func (g *gateway) checkReplaced(t *testing.T, guest *lab.Guest) {
	file := guest.MemoryFile()
	away := file + ".away"
	must(t, os.Rename(file, away))
	t.Cleanup(func() { os.Remove(away) })
	must(t, os.WriteFile(file, make([]byte, 1<<20), 0o600))
	await(t, "the new file is no guest yet", func() bool { return g.vm("app3").Memory == "waiting" && g.vm("app3").OS == "" })
	must(t, os.Rename(away, file))
	await(t, "the guest is back", func() bool { return g.vm("app3").Memory == "ready" })
}

// checkShared: a shell opens a UDP socket and gives it to a child before the
// first packet is sent; the decision is by the stricter of the two.
func (g *gateway) checkShared(t *testing.T, guest *lab.Guest) {
	ask(t, guest, `cat >/tmp/`+suspectName+` <<'END'
#!/bin/sh
while :; do sleep 1; done
END
cat >/tmp/parent <<'END'
#!/bin/sh
/tmp/`+suspectName+` & kid=$!
while [ "$(cat /proc/$kid/comm)" != `+suspectName+` ]; do usleep 10000; done
echo shared
exec sleep 60
END
chmod +x /tmp/parent /tmp/`+suspectName)
	mark := g.events.mark()
	ask(t, guest, "nc "+strings.Replace(address(g.Web1, 80, false), ":", " ", 1)+" -e /tmp/parent >/dev/null 2>&1 </dev/null &")
	opened := g.events.wait(t, mark, "the decision on the parent's connection", func(e event.Event) bool {
		return e.Type == "decision" && e.SrcVM == "app3" && e.DestPort == 80 && e.SrcProcess != nil && e.SrcProcess.Name == "nc"
	})
	if opened.Verdict != "forward" {
		t.Errorf("the parent alone is %s (%s)", opened.Verdict, opened.Cause)
	}
	// The connection is open, and shared from now on. Looked at anew it has two
	// holders, the stricter of which decides.
	await(t, "the shared socket is seen to be suspect", func() bool {
		x, err := g.Client.Explain(t.Context(), api.Tuple{
			Proto: "tcp", Src: opened.SrcIP, SrcPort: opened.SrcPort, Dst: opened.DestIP, DstPort: opened.DestPort,
		})
		must(t, err)
		return len(x.SrcOwner.Processes) >= 2 && x.Decision.Verdict.String() == "check" && x.Decision.Cause.String() == "suspect"
	})
}

func (g *gateway) checkHidden(t *testing.T, guest *lab.Guest) {
	p := startIn(t, guest, "ghost", "connect", address(g.Web1, 80, false), "-n", "0", "-every", "300ms", "-timeout", "1s")
	if r := result(t, p); !r.OK {
		t.Fatalf("not hidden yet: %+v", r)
	}
	mark := g.events.mark()
	must(t, vmitest.Hide(guest.MemoryFile(), "q35", uint32(p.PID())))
	if ps := ask(t, guest, "ps"); strings.Contains(ps, "ghost") {
		t.Error("the guest's own ps shows it still")
	}
	e := g.events.wait(t, mark, "a checked connection of it", func(e event.Event) bool {
		return e.Type == "decision" && e.SrcProcess != nil && int(e.SrcProcess.PID) == p.PID() && e.SrcProcess.Hidden
	})
	if e.Verdict != "check" || e.Cause != "hidden" {
		t.Errorf("decided %s (%s)", e.Verdict, e.Cause)
	}
	findings, err := g.Client.Findings(t.Context(), "app3")
	must(t, err)
	if !slices.ContainsFunc(findings, func(f vmi.Finding) bool { return f.Kind == vmi.HiddenProcess && int(f.PID) == p.PID() }) {
		t.Errorf("the findings do not name it: %+v", findings)
	}
	must(t, vmitest.Unhide(guest.MemoryFile(), "q35", uint32(p.PID())))
	end(t, p)
}

func (g *gateway) checkConviction(t *testing.T, guest *lab.Guest) {
	p := startIn(t, guest, "convict", "connect", address(g.Web1, 80, false), "-n", "0", "-every", "200ms", "-timeout", "1s")
	if r := result(t, p); !r.OK {
		t.Fatalf("before its conviction: %+v", r)
	}
	store := g.File("state/state.db")
	before, err := os.ReadFile(store)
	must(t, err)
	must(t, g.Client.Measure(t.Context(), api.Measure{Action: "isolate", VM: "app3", PID: uint32(p.PID())}))
	g.stop(syscall.SIGKILL)
	must(t, os.WriteFile(store, before, 0o600)) // as if it had not been stored in time
	g.start()
	await(t, "app3 is understood again", func() bool { return g.vm("app3").Memory == "ready" })
	mark := g.events.mark()
	e := g.events.wait(t, mark, "a decision on it after the restart", func(e event.Event) bool {
		return e.SrcProcess != nil && int(e.SrcProcess.PID) == p.PID() && (e.Type == "decision" || e.Type == "drop")
	})
	if e.Type == "decision" && (e.Verdict != "drop" || e.Cause != "operator") {
		t.Errorf("decided %s (%s)", e.Verdict, e.Cause)
	}
	lines := len(p.Lines())
	await(t, "it tries on", func() bool { return len(p.Lines()) >= lines+2 })
	for _, line := range p.Lines()[lines:] {
		if strings.Contains(line, `"ok":true`) {
			t.Errorf("the convict connects: %s", line)
		}
	}
	end(t, p)
}

func (g *gateway) checkReuse(t *testing.T, guest *lab.Guest) {
	const port = 45678
	serve(t, g.App2, 7000)
	mark := g.events.mark()
	bad := startIn(t, guest, "bad", "connect", address(g.Web1, 80, true), "-source-port", fmt.Sprint(port), "-hold", "1h")
	if e := g.events.wait(t, mark, "the decision on the first holder", decisionOn(port)); e.Verdict != "forward" || e.SrcProcess.Name != "bad" {
		t.Fatalf("decided %s on %v", e.Verdict, e.SrcProcess)
	}
	must(t, g.Client.Measure(t.Context(), api.Measure{Action: "isolate", VM: "app3", PID: uint32(bad.PID())}))
	end(t, bad)
	mark = g.events.mark()
	// To another server: the cut connection cannot end, and keeps its four numbers.
	good := startIn(t, guest, "good", "connect", address(g.App2, 7000, true), "-source-port", fmt.Sprint(port), "-timeout", "20s")
	if r := result(t, good); !r.OK || r.Port != port {
		t.Errorf("the new holder's connection: %+v", r)
	}
	e := g.events.wait(t, mark, "the decision on the new holder", decisionOn(port))
	if e.Verdict != "forward" || e.SrcProcess == nil || int(e.SrcProcess.PID) != good.PID() || e.SrcProcess.Name != "good" {
		t.Errorf("decided %s (%s) on %v", e.Verdict, e.Cause, e.SrcProcess)
	}
}

// connection is a line of the workload's connect.
type connection struct {
	OK    bool   `json:"ok"`
	Port  int    `json:"port"`
	Error string `json:"error"`
}

func guestTime(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func startIn(t *testing.T, guest *lab.Guest, name string, args ...string) *lab.Process {
	t.Helper()
	p, err := guest.Start(guestTime(t), name, args...)
	must(t, err)
	return p
}

// result is the first connection that a process tells of.
func result(t *testing.T, p *lab.Process) (c connection) {
	t.Helper()
	line, err := p.WaitLine(guestTime(t), func(line string) bool { return strings.Contains(line, `"ok":`) })
	must(t, err)
	must(t, json.Unmarshal([]byte(line), &c))
	return c
}

func end(t *testing.T, p *lab.Process) {
	t.Helper()
	must(t, p.Signal(syscall.SIGKILL))
	_, err := p.Wait(guestTime(t))
	must(t, err)
}

// ask runs a command line in the guest and returns what it says.
func ask(t *testing.T, guest *lab.Guest, command string) string {
	t.Helper()
	out, _, err := guest.Run(guestTime(t), command)
	must(t, err)
	return out
}
