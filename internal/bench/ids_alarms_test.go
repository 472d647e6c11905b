package bench_test

import (
	"flag"
	"fmt"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vmgate/vmgate/internal/bench/result"
)

var soak = flag.Duration("soak", 10*time.Minute, "how long ids_false_alarms loads the engine")

// BenchmarkIDSFalseAlarms floods the engine with more than it can take, of which it
// drops one half by rules that are slow, has it read its rules again every ten seconds,
// and counts how often it is taken for dead or hung.
func BenchmarkIDSFalseAlarms(b *testing.B) {
	want(b, "ids_false_alarms")
	conditions := result.Conditions(map[string]any{
		"engine": "suricata", "seconds": soak.Seconds(), "reload_every_s": 10,
		"load": "one sender of 1,000-byte UDP as fast as it can, all of it through the engine, every other packet dropped by it",
	})
	rules := `drop udp any any -> any any (msg:"flood"; content:"bench-flood"; noalert; sid:7000003; rev:1;)` + "\n"
	for i := range 50 { // to make it slow
		rules += fmt.Sprintf(`alert udp any any -> any any (msg:"slow"; pcre:"/(bench.*){4}never%d/"; sid:%d; rev:1;)`+"\n", i, 7000100+i)
	}
	g := newGateway(b, inspected, rules)
	g.absorb(g.Web1, 443)
	before, err := g.Client.IDS(b.Context())
	must(b, err)
	stop, sent := make(chan struct{}), make(chan int, 1)
	sender := tapOn(b, g.App1)
	frames := [][]byte{
		datagram(b, g.App1, g.Web1, 21000, 443, "bench-flood"+strings.Repeat("bench-floo-", 85)),
		datagram(b, g.App1, g.Web1, 21001, 443, strings.Repeat("bench-floo-", 86)),
	}
	go func() {
		n := 0
		defer func() { sent <- n }()
		for {
			select {
			case <-stop:
				return
			default:
			}
			switch _, err := unix.Write(sender.fd, frames[n%2]); err {
			case nil:
				n++
			case unix.ENOBUFS: // the gateway has its hands full
				time.Sleep(100 * time.Microsecond)
			default:
				b.Error(err)
				return
			}
		}
	}()
	reloads := 0
	for began := time.Now(); time.Since(began) < *soak; {
		time.Sleep(min(10*time.Second, *soak/2))
		if err := g.Client.ReloadIDS(b.Context()); err != nil {
			b.Errorf("reload: %v", err)
		}
		reloads++
	}
	close(stop)
	n := <-sent
	after, err := g.Client.IDS(b.Context())
	must(b, err)
	alarms := after.Restarts - before.Restarts
	if after.State != "up" || after.Engines[0].LastReason != before.Engines[0].LastReason {
		alarms++
		b.Logf("the engine is %s; it was last not up because: %s", after.State, after.Engines[0].LastReason)
	}
	if after.PacketsOut == before.PacketsOut || after.PacketsIn-before.PacketsIn < uint64(n)/2 {
		b.Fatalf("the load did not go through the engine: %+v", after)
	}
	conditions["packets_sent"], conditions["packets_in"], conditions["packets_out"] = n, after.PacketsIn-before.PacketsIn, after.PacketsOut-before.PacketsOut
	conditions["reloads"] = reloads
	record(b, map[string]result.Figure{"ids_false_alarms": result.Of("", []float64{float64(alarms)})}, conditions, nil)
}
