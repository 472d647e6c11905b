package e2e_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/vmgate/vmgate/internal/api"
	"github.com/vmgate/vmgate/internal/event"
	"github.com/vmgate/vmgate/internal/lab"
	"github.com/vmgate/vmgate/pkg/verdict"
)

// checkForged: a process sends by a packet socket from ports that no socket has.
// It is named as the one who could, and its packets are checked; once it is
// isolated, they are dropped, since nobody else could have sent them.
func (g *gateway) checkForged(t *testing.T, guest *lab.Guest) {
	for _, c := range []struct {
		proto string
		port  int
		flag  string
	}{{"udp", 50100, "-tcp=false"}, {"tcp", 50200, "-tcp"}} {
		mark := g.events.mark()
		forger := startIn(t, guest, "forger", "forge", "-source", fmt.Sprintf("10.77.0.13:%d", c.port), "-mac", g.Web1.MAC.String(), c.flag, address(g.Web1, 80, false))
		from := func(least uint16) func(event.Event) bool {
			return func(e event.Event) bool {
				return e.Type == "decision" && e.SrcVM == "app3" && e.SrcPort >= least && int(e.SrcPort) < c.port+100
			}
		}
		e := g.events.wait(t, mark, "the decision on a forged packet", from(uint16(c.port)))
		if e.Verdict != "check" || e.Cause != "no-owner" || e.SrcProcess != nil || !slices.Equal(candidatesOf(e), []int{forger.PID()}) {
			t.Errorf("%s: decided %s (%s) for %v, candidates %v; want check, and the candidate %d: %+v", c.proto, e.Verdict, e.Cause, e.SrcProcess, candidatesOf(e), forger.PID(), e.Evidence)
		}
		out, exit := g.run("owner", "app3", c.proto, fmt.Sprint(c.port), "--socket", g.Socket())
		if exit != 4 || !strings.Contains(out, fmt.Sprintf("candidate  %d", forger.PID())) || !strings.Contains(out, "packet socket") {
			t.Errorf("gatewayd owner ended with %d: %s", exit, out)
		}
		must(t, g.Client.Measure(t.Context(), api.Measure{Action: "isolate", VM: "app3", PID: uint32(forger.PID())}))
		await(t, "its forged packets are dropped", func() bool {
			mark := g.events.mark()
			e := g.events.wait(t, mark, "the decision on a later packet", from(0))
			return e.Verdict == "drop" && e.Cause == "no-owner" && slices.Equal(candidatesOf(e), []int{forger.PID()})
		})
		end(t, forger)
	}
}

// candidatesOf are the pids of those who could have sent a flow's packets.
func candidatesOf(e event.Event) []int {
	var out []int
	for _, ev := range e.Evidence {
		if ev.Kind == verdict.EvidenceCandidate && ev.VM == "app3" {
			out = append(out, int(ev.Process.PID))
		}
	}
	return out
}
