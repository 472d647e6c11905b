package e2e_test

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vmgate/vmgate/internal/api"
	"github.com/vmgate/vmgate/internal/event"
)

// TestClear: bulk traffic leaves the IDS when it has been clean for long enough, and
// comes back when something new is held against it. Its connection never notices.
func TestClear(t *testing.T) {
	rules := rulesWith("inspect", "check, clear-after: {packets: 200, bytes: 100000}")
	g := namespaced(t, setup{IDS: harmlessRule, Rules: rules})
	s := newStream(t, g.App1, serve(t, g.Web1, 443), false)
	for i, bringBack := range []func(){
		func() {
			must(t, g.Client.Report(t.Context(), api.Report{
				Finding: "suspect", Author: "e2e", Reason: "beacon", For: time.Hour,
				Flow: &api.Tuple{Proto: "tcp", Src: g.App1.V4.Addr().String(), SrcPort: uint16(s.source), Dst: g.Web1.V4.Addr().String(), DstPort: 443},
			}))
		},
		func() {
			must(t, g.Client.AddListEntry(t.Context(), api.ListEntry{List: "suspect", Name: "somebody"}))
		},
		func() { g.measure(t, "inspect", "app1") },
	} {
		mark := g.events.mark()
		await(t, "the flow is cleared", func() bool { return g.flowOf("app1", s.source).Verdict == "forward" })
		before := g.counts()
		s.moves(t)
		now := g.counts()
		if n := now["apps/check"] - before["apps/check"]; n > 0 || now["apps/forward"] == before["apps/forward"] {
			t.Errorf("cleared, %d packets go to the IDS", n)
		}
		bringBack()
		e := g.events.wait(t, mark, "its return", func(e event.Event) bool {
			return e.Type == "clearance" && strings.HasPrefix(e.Message, "inspected again")
		})
		if int(e.SrcPort) != s.source || e.SrcVM != "app1" {
			t.Errorf("return %d is about %s:%d", i, e.SrcVM, e.SrcPort)
		}
		if f := g.flowOf("app1", s.source); f.Verdict != "check" {
			t.Errorf("return %d: the flow is %s", i, f.Verdict)
		}
		before = g.counts()
		s.moves(t)
		now = g.counts()
		if n := now["apps/forward"] - before["apps/forward"]; n > 0 || now["ids-out/ids-return"] == before["ids-out/ids-return"] {
			t.Errorf("return %d: %d packets pass beside the IDS", i, n)
		}
	}
	// What an operator has ordered is not lifted: two rounds of housekeeping later.
	time.Sleep(5 * time.Second)
	if f := g.flowOf("app1", s.source); f.Verdict != "check" {
		t.Errorf("inspected by hand, the flow is %s", f.Verdict)
	}
	if lost := s.finish(t); lost > 0 {
		t.Errorf("%d segments were lost", lost)
	}
}

// TestReport: what another tool says is in force when the call returns, and until it
// expires.
func TestReport(t *testing.T) {
	g := namespaced(t, setup{IDS: harmlessRule, IDSMore: "never: [{vm: web1}]"})
	absorb(t, g.Web1, 80)
	p := newProbe(g.App1, g.Web1, 80)
	g.passes(t, g.webWire, p)
	mark, before := g.events.mark(), g.counts()
	out, exit := g.run("report", "malicious", "--vm", "app1", "--author", "av", "--reason", "worm", "--for", "4s", "--socket", g.Socket())
	if exit != 0 {
		t.Fatalf("ended with %d: %s", exit, out)
	}
	cut := p.again()
	cut.send(t)
	g.awaitCount(t, before, "apps/drop-verdict", 1)
	if len(g.webWire.seen(carries(cut.payload))) > 0 {
		t.Error("a packet of a malicious VM arrived")
	}
	e := g.events.wait(t, mark, "the report", func(e event.Event) bool { return e.Type == "verdict" && e.SrcVM == "app1" })
	if e.Verdict != "drop" || e.Cause != "report" || !strings.Contains(e.Message, "by av (root): worm") {
		t.Errorf("the event says %s (%s): %s", e.Verdict, e.Cause, e.Message)
	}
	await(t, "it expires", func() bool { return g.vm("app1").Verdict == "forward" })
	g.passes(t, g.webWire, p.again())

	for name, args := range map[string][]string{
		"spared":  {"--vm", "web1"},
		"unknown": {"--vm", "nobody"},
		"no flow": {"--flow", "tcp 10.77.0.11:1 10.77.0.21:2"},
		"no pid":  {"--vm", "app1", "--pid", "5"},
	} {
		out, exit := g.run(append(append([]string{"report", "malicious"}, args...), "--author", "av", "--reason", "worm", "--socket", g.Socket())...)
		if exit == 0 {
			t.Errorf("%s: taken in: %s", name, out)
		}
	}
	if vm := g.vm("web1"); vm.Verdict != "forward" {
		t.Errorf("web1 is %s", vm.Verdict)
	}
}

// TestVMRules: who forges addresses is isolated, until it is released; a neighbour in
// whose name somebody forges elsewhere is not.
func TestVMRules(t *testing.T) {
	g := namespaced(t, setup{VMRules: "[{when: spoofing, count: 3, within: 1m, then: isolate}]"})
	absorb(t, g.Web1, 80)
	mark := g.events.mark()
	forge := func(change func(*probe)) {
		for range 4 {
			p := newProbe(g.App1, g.Web1, 80)
			change(&p)
			before := g.counts()
			p.send(t)
			g.awaitCount(t, before, "apps/drop-spoof", 1)
		}
	}
	forge(func(p *probe) { p.mac = g.Web1.MAC }) // not from where web1 is
	g.fence(t, g.webWire, g.App1)
	if web := g.vm("web1"); web.Verdict != "forward" {
		t.Fatalf("web1 is %s for what another did", web.Verdict)
	}
	app2 := net.IP(g.App2.V4.Addr().AsSlice())
	before := g.counts()
	for range 3 {
		p := newProbe(g.App1, g.Web1, 80)
		p.fakeSource = app2
		p.send(t)
	}
	g.awaitCount(t, before, "apps/drop-spoof", 3)
	e := g.events.wait(t, mark, "the measure", func(e event.Event) bool { return e.Type == "verdict" })
	if e.SrcVM != "app1" || e.Verdict != "drop" || e.Cause != "spoof" || !strings.Contains(e.Message, "3 spoofing within 1m0s") {
		t.Errorf("the event says %s is %s (%s): %s", e.SrcVM, e.Verdict, e.Cause, e.Message)
	}
	before = g.counts()
	newProbe(g.App1, g.Web1, 80).send(t)
	g.awaitCount(t, before, "apps/drop-verdict", 1)
	g.measure(t, "release", "app1")
	g.passes(t, g.webWire, newProbe(g.App1, g.Web1, 80))
}

// TestIDS_Verbs: rules that the engine does not take are refused in its own words, and
// those in force stay.
func TestIDS_Verbs(t *testing.T) {
	rule := func(word string, sid int) string {
		return fmt.Sprintf(`drop udp any any -> any any (msg:"e2e"; content:"%s"; sid:%d; rev:1;)`+"\n", word, sid)
	}
	g := namespaced(t, setup{IDS: rule("e2e-old", 7000201)})
	absorb(t, g.Web1, 443)
	ids := func(verb string) (string, int) { return g.run("ids", verb, "--socket", g.Socket()) }
	rules := func(text string) { must(t, os.WriteFile(filepath.Join(g.Dir, "local.rules"), []byte(text), 0o644)) }
	caught := func(word string, sid uint32) {
		t.Helper()
		p := newProbe(g.App1, g.Web1, 443)
		g.passes(t, g.webWire, p)
		mark := g.events.mark()
		p.payload += word
		p.send(t)
		g.events.wait(t, mark, "the alert on "+word, func(e event.Event) bool { return e.Type == "alert" && e.Alert.SID == sid })
	}
	caught("e2e-old", 7000201)

	rules("drop udp any any -> nonsense\n")
	for _, verb := range []string{"test", "reload"} {
		if out, exit := ids(verb); exit != 5 || !strings.Contains(out, "local.rules") {
			t.Errorf("bad rules: %s ended with %d: %s", verb, exit, out)
		}
	}
	caught("e2e-old", 7000201)
	if out, exit := ids("status"); exit != 0 || !strings.Contains(out, "1 loaded") || !strings.Contains(out, "local.rules") || strings.Contains(out, "none yet") {
		t.Errorf("status ended with %d: %s", exit, out)
	}

	rules(rule("e2e-old", 7000201) + rule("e2e-new", 7000202))
	if out, exit := ids("test"); exit != 0 {
		t.Errorf("good rules: test ended with %d: %s", exit, out)
	}
	if out, exit := ids("reload"); exit != 0 {
		t.Errorf("good rules: reload ended with %d: %s", exit, out)
	}
	caught("e2e-new", 7000202)
	detail, err := g.Client.IDS(t.Context())
	must(t, err)
	if detail.Rules != 2 || detail.Restarts != 0 || detail.PacketsIn == 0 || detail.NotBack < 2 || len(detail.Engines) != 1 || detail.Engines[0].CanaryAge > time.Second || detail.Refused != "" {
		t.Errorf("status %+v", detail)
	}
}
