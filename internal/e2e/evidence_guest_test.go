package e2e_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/vmgate/vmgate/internal/event"
	"github.com/vmgate/vmgate/internal/lab"
	"github.com/vmgate/vmgate/pkg/vmi/vmitest"
)

// TestGuestEvidence: what is held against a process of a real guest, and against the
// guest, after one of its flows has been found clean.
func TestGuestEvidence(t *testing.T) {
	g, guest := guestGatewayWith(t, setup{
		IDS:     `alert tcp any any -> any 443 (msg:"beacon"; flow:stateless; flags:S; sid:7000401; rev:1;)` + "\n",
		Rules:   append(rulesWith("inspect", "check"), rule{"bulk", "to: {vm: web1}", "8080", "check, clear-after: {packets: 10}"}),
		VMRules: "[{when: findings, then: inspect}]",
	})
	serve(t, g.Web1, 8080)
	serve(t, g.Web1, 443)
	serve(t, g.Web1, 80)
	other := startIn(t, guest, "other", "connect", address(g.Web1, 80, false), "-n", "0", "-every", "300ms", "-timeout", "5s")
	bad := startIn(t, guest, "bad", "flood", address(g.Web1, 443, false), "-wait", "15s", "-workers", "1", "-keep", address(g.Web1, 8080, false))
	t.Run("anAlertBringsAClearedFlowOfItsProcessBack", func(t *testing.T) { g.checkReturn(t, bad) })
	t.Run("aReportCutsItsProcessOff", func(t *testing.T) { g.checkReported(t, bad, other) })
	t.Run("aHookHasTheGuestInspected", func(t *testing.T) { g.checkHook(t, guest, other) })
	end(t, bad)
	end(t, other)
}

func (g *gateway) checkReturn(t *testing.T, bad *lab.Process) {
	e := g.events.wait(t, 0, "the kept connection", func(e event.Event) bool { return e.Type == "decision" && e.DestPort == 8080 })
	if e.Verdict != "check" || e.SrcProcess == nil || int(e.SrcProcess.PID) != bad.PID() {
		t.Fatalf("decided %s (%s) on %v", e.Verdict, e.Cause, e.SrcProcess)
	}
	kept := int(e.SrcPort)
	clearance := func(returns bool) func(event.Event) bool {
		return func(e event.Event) bool {
			return e.Type == "clearance" && int(e.SrcPort) == kept && strings.HasPrefix(e.Message, "inspected again") == returns
		}
	}
	g.events.wait(t, 0, "that it is cleared", clearance(false))
	alert := g.events.wait(t, 0, "the alert on another flow", func(e event.Event) bool { return e.Type == "alert" && e.Alert.SID == 7000401 })
	if alert.SrcProcess == nil || int(alert.SrcProcess.PID) != bad.PID() {
		t.Errorf("the alert is blamed on %v", alert.SrcProcess)
	}
	g.events.wait(t, 0, "its return", clearance(true))
	before := g.counts()
	if f := g.flowOf("app3", kept); f.Verdict != "check" {
		t.Errorf("back, it is %s (%s)", f.Verdict, f.Cause)
	}
	g.awaitCount(t, before, "ids-out/ids-return", 1)
	for _, line := range bad.Lines() {
		if strings.Contains(line, `"kept":false`) {
			t.Errorf("its return breaks it: %s", line)
		}
	}
}

func (g *gateway) checkReported(t *testing.T, bad, other *lab.Process) {
	mark, before := g.events.mark(), g.counts()
	out, exit := g.run("report", "malicious", "--vm", "app3", "--pid", fmt.Sprint(bad.PID()), "--author", "av", "--reason", "worm", "--for", "1h", "--socket", g.Socket())
	if exit != 0 {
		t.Fatalf("ended with %d: %s", exit, out)
	}
	g.events.wait(t, mark, "the conviction", func(e event.Event) bool {
		return e.Type == "verdict" && e.Verdict == "drop" && e.Cause == "report" && e.SrcProcess != nil && int(e.SrcProcess.PID) == bad.PID()
	})
	g.awaitCount(t, before, "apps/drop-verdict", 2)
	_, err := bad.WaitLine(guestTime(t), func(line string) bool { return strings.Contains(line, `"kept":false`) })
	must(t, err)
	goesOn(t, other)
	if vm := g.vm("app3"); vm.Verdict != "forward" {
		t.Errorf("app3 as a whole is %s", vm.Verdict)
	}
}

// goesOn wants the next connections of a process to come about.
func goesOn(t *testing.T, p *lab.Process) {
	t.Helper()
	lines := len(p.Lines())
	await(t, "another process goes on", func() bool { return len(p.Lines()) > lines+2 })
	for _, line := range p.Lines()[lines:] {
		if strings.Contains(line, `"ok":false`) {
			t.Errorf("another process is harmed: %s", line)
		}
	}
}

// unusedCall is a system call that nothing in the guest makes: process_madvise.
const unusedCall = 440

func (g *gateway) checkHook(t *testing.T, guest *lab.Guest, other *lab.Process) {
	var table uint64
	_, err := fmt.Sscanf(ask(t, guest, "grep ' sys_call_table$' /proc/kallsyms"), "%x", &table)
	must(t, err)
	mark := g.events.mark()
	undo, err := vmitest.HookCall(guest.MemoryFile(), "q35", uint32(other.PID()), table, unusedCall)
	must(t, err)
	defer func() { must(t, undo()) }()
	// The daemon looks every 30 seconds.
	for deadline := time.Now().Add(2 * patience); g.vm("app3").Verdict != "check" && time.Now().Before(deadline); {
		time.Sleep(100 * time.Millisecond)
	}
	e := g.events.wait(t, mark, "the measure", func(e event.Event) bool { return e.Type == "verdict" && e.SrcVM == "app3" && e.SrcProcess == nil })
	if e.Verdict != "check" || !strings.Contains(e.Message, "findings") {
		t.Errorf("the guest is %s (%s): %s", e.Verdict, e.Cause, e.Message)
	}
	before := g.counts()
	goesOn(t, other)
	g.awaitCount(t, before, "ids-out/ids-return", 1)
	g.measure(t, "release", "app3")
	if vm := g.vm("app3"); vm.Verdict != "forward" {
		t.Errorf("released, it is %s", vm.Verdict)
	}
}
