package e2e_test

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/vmgate/vmgate/internal/event"
	"github.com/vmgate/vmgate/pkg/vmi/vmitest"
)

// synThreshold is how many SYNs of one source the paper's rule lets by in a minute.
const synThreshold = 10

// TestPaper is the experiment of the paper, and its attack before that: a process of a
// guest opens a channel to its master, the neighbour is scanned, the process hides and
// floods. It is traced, inspected, convicted and cut off; the victim sees no more than
// the rule lets by, and the rest of the guest notices nothing.
func TestPaper(t *testing.T) { eachEngine(t, checkPaper) }

func checkPaper(t *testing.T, s setup) {
	s.IDS = fmt.Sprintf(`drop tcp any any -> 10.77.0.21 80 (msg:"TCP sync flood"; flow:stateless; flags:S; detection_filter: track by_src, count %d, seconds 60; sid:1000001; rev:1;)`+"\n", synThreshold)
	g, guest := guestGatewayWith(t, s)
	serve(t, g.Web1, 80)
	honest := startIn(t, guest, "honest", "connect", address(g.Web1, 80, true), "-n", "0", "-every", "300ms", "-timeout", "5s")
	if r := result(t, honest); !r.OK {
		t.Fatalf("the honest process cannot connect: %+v", r)
	}
	bad := startIn(t, guest, "bad", "flood", address(g.Web1, 80, false), "-wait", "15s", "-keep", address(g.Web1, 80, false))
	_, err := bad.WaitLine(guestTime(t), func(line string) bool { return strings.Contains(line, `"kept":true`) })
	must(t, err)

	mark := g.events.mark()
	ask(t, guest, "for p in 21 22 23; do nc -w 1 10.77.0.21 $p </dev/null; done; true")
	for _, port := range []uint16{21, 22, 23} {
		e := g.events.wait(t, mark, "the scan", func(e event.Event) bool { return e.Type == "decision" && e.SrcVM == "app3" && e.DestPort == port })
		if e.Verdict != "drop" || e.Cause != "rule" {
			t.Errorf("the scan of port %d is %s (%s)", port, e.Verdict, e.Cause)
		}
	}

	isBad := func(e event.Event) bool {
		return e.SrcVM == "app3" && e.SrcProcess != nil && int(e.SrcProcess.PID) == bad.PID()
	}
	mark, before := g.events.mark(), g.counts()
	must(t, vmitest.Hide(guest.MemoryFile(), "q35", uint32(bad.PID())))
	g.events.wait(t, mark, "that it hides", func(e event.Event) bool {
		return isBad(e) && e.Type == "verdict" && e.Verdict == "check" && e.Cause == "hidden"
	})
	alert := g.events.wait(t, mark, "the alert", func(e event.Event) bool { return isBad(e) && e.Type == "alert" })
	convicted := g.events.wait(t, mark, "its conviction", func(e event.Event) bool {
		return isBad(e) && e.Type == "verdict" && e.Verdict == "drop" && e.Cause == "alert"
	})
	g.awaitCount(t, before, "apps/drop-verdict", 2) // what its open connections send; new ones end with their decision
	_, err = bad.WaitLine(guestTime(t), func(line string) bool { return strings.Contains(line, `"kept":false`) })
	must(t, err)

	victim := len(g.webWire.seen(func(f []byte) bool {
		return len(f) >= 54 && f[12] == 8 && f[13] == 0 && f[23] == 6 && f[47]&0x12 == 0x02 &&
			bytes.Equal(f[26:30], []byte{10, 77, 0, 13}) && f[36] == 0 && f[37] == 80
	})) - 1 // its channel's
	if victim < 1 || victim > synThreshold {
		t.Errorf("the victim saw %d SYNs of the flood, want 1 to %d", victim, synThreshold)
	}
	t.Logf("the victim saw %d SYNs; convicted %v after the alert's packet; %d packets dropped in XDP so far",
		victim, convicted.Timestamp.Sub(alert.Timestamp).Round(time.Microsecond), g.since(before, "apps/drop-verdict"))

	lines := len(honest.Lines())
	await(t, "the honest process goes on", func() bool { return len(honest.Lines()) > lines+3 })
	for _, line := range honest.Lines()[lines:] {
		if strings.Contains(line, `"ok":false`) {
			t.Errorf("the honest process is harmed: %s", line)
		}
	}
	if vm := g.vm("app3"); vm.Verdict != "forward" {
		t.Errorf("app3 as a whole is %s", vm.Verdict)
	}
	end(t, bad)
	end(t, honest)
}
