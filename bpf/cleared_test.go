package bpf_test

import (
	"testing"

	"github.com/vmgate/vmgate/bpf"
)

// TestCleared: a flow that was found clean is forwarded whatever scope says check;
// drop and undecided are as they were, and other flows of the same ends too.
func TestCleared(t *testing.T) { bothPaths(t, testCleared) }

func testCleared(t *testing.T, g *gateway) {
	w := g.webSide()
	there := tcpApp1ToWeb(tcp(40000, 80, ack))
	back, other := there.reversed(tcp(80, 40000, ack)), tcpApp1ToWeb(tcp(40001, 80, ack))
	cleared := func(f *bpf.VmgateFlow) { f.Cleared = 1 }
	for name, scope := range map[string]func(bpf.VmgateVerdict){
		"VM":    func(v bpf.VmgateVerdict) { g.vmVerdict(idApp1, v) },
		"rule":  func(v bpf.VmgateVerdict) { g.rule(v) },
		"owner": func(v bpf.VmgateVerdict) { g.owner(ownerWeb, v) },
	} {
		t.Run(name, func(t *testing.T) {
			g, w := g.in(t), w.in(t)
			defer scope(forward)
			g.empty("pending")
			g.decide(6, 0, app1, 40000, web, 80, cleared)
			g.decide(6, 0, app1, 40001, web, 80, nil)
			scope(check)
			g.expect(there.build(t), forwardedTo(portWeb))
			w.expect(back.build(t), forwardedTo(portApp))
			g.expect(other.build(t), checkedBy(portIDSIn))
			scope(drop)
			g.expect(there.build(t), cutOff)
			w.expect(back.build(t), cutOff)
		})
	}
	g.rule(undecided) // as a policy reload leaves it
	g.expect(there.build(t), punted())
}
