package bench_test

import (
	"testing"
	"time"

	"github.com/vmgate/vmgate/internal/bench/result"
	"github.com/vmgate/vmgate/pkg/loader"
)

// open is a configuration that allows what goes to web1's upper ports, and whose VMs
// are in nobody's way.
const open = `gateway:
  pins: PINS
  state: DIR/state
  run: DIR/run
segments:
  - {name: apps, vnic: gw-apps, subnets: [10.77.0.0/24], reflect: true, datapath: xdp}
  - {name: web, vnic: gw-web, subnets: [10.77.0.0/24], datapath: xdp}
vms:
  - {id: app1, segment: apps, macs: ["02:77:00:00:00:11"], addresses: {static: [10.77.0.11]}}
  - {id: app2, segment: apps, macs: ["02:77:00:00:00:12"], addresses: {static: [10.77.0.12]}}
  - {id: web1, segment: web, macs: ["02:77:00:00:00:21"], addresses: {static: [10.77.0.21]}}
policy:
  default: deny
  rules:
    - {name: allow, to: {vm: web1}, protocol: udp, ports: [80, "1024-65535"], action: allow}
decision: {held-per-vm: 65536, flows-per-vm: 1000000}
`

const floodPorts = 256 // destination ports of a flood, that its VM's budget is evenly used

// BenchmarkNewFlows finds the highest rate of new flows, one datagram each, of which
// none is lost and all are installed.
func BenchmarkNewFlows(b *testing.B) {
	want(b, "new_flows_per_s")
	const runs, seconds = 3, 2
	rates := []int{5000, 10000, 15000, 20000, 25000, 30000, 32000, 36000, 40000, 50000}
	conditions := result.Conditions(map[string]any{
		"rates": rates, "seconds_a_rate": seconds, "runs": runs, "sender": "one VM, raw sockets, paced by the millisecond, on the same two cores",
		"owners": "VMs without memory: none is looked up", "budget": "the VM's own, 16,000 a second, is lifted",
	})
	g := newGateway(b, open, "")
	g.unbind("app1")
	must(b, g.Web1.Namespace.Sysctl("ipv4/icmp_ratelimit", "1000000")) // it answers none of it
	f := newFlood(g)
	var best []float64
	for run := range runs {
		reached := 0.0
		for _, rate := range rates {
			sent, arrived, flows, took := f.pour(rate, seconds*time.Second)
			progress(b, "%d/%d %d a second: %d sent, %d arrived in %v, %d installed", run+1, runs, rate, sent, arrived, took, flows)
			if arrived < sent || flows < sent {
				break
			}
			reached = max(reached, float64(sent)/took.Seconds()) // the sender may be the slower
		}
		best = append(best, reached)
	}
	record(b, map[string]result.Figure{"new_flows_per_s": result.Of("flows/s", best)}, conditions, nil)
}

// unbind lifts the kernel's budget of undecided flows of a VM.
func (g *gateway) unbind(name string) {
	g.b.Helper()
	vms := g.dp.VMs()
	for id, vm := range vms.All() {
		if vm.Name == name {
			vm.Budget = 1_000_000
			must(g.b, g.dp.SetVM(id, vm))
		}
	}
	must(g.b, vms.Err())
}

// flood sends datagrams, each of a flow that was never there.
type flood struct {
	*gateway
	from, to *tap
	frame    []byte
	next     int // number of the next flow
}

func newFlood(g *gateway) *flood {
	g.b.Helper()
	f := &flood{gateway: g, from: tapOn(g.b, g.App1), to: tapOn(g.b, g.Web1), frame: datagram(g.b, g.App1, g.Web1, 1024, 2000, "<new>")}
	f.frame[40], f.frame[41] = 0, 0 // no checksum: the ports change
	return f
}

// send sends the next flow's datagram.
func (f *flood) send() {
	n := f.next
	f.next++
	source, port := 1024+n/floodPorts%64000, 2000+n%floodPorts
	f.frame[34], f.frame[35] = byte(source>>8), byte(source)
	f.frame[36], f.frame[37] = byte(port>>8), byte(port)
	f.from.push(f.b, f.frame)
}

// pour sends new flows at a rate and returns how many were sent, how many came out,
// how many were installed, and the time from the first sent to the last come. It
// leaves no flow behind.
func (f *flood) pour(rate int, length time.Duration) (sent, arrived, installed int, took time.Duration) {
	f.b.Helper()
	begin := time.Now()
	for total := int(float64(rate) * length.Seconds()); sent < total; {
		for due := min(total, int(time.Since(begin).Seconds()*float64(rate))); sent < due; sent++ {
			f.send()
		}
		arrived += f.drain()
		time.Sleep(time.Millisecond / 2)
	}
	last := time.Now()
	for ; arrived < sent && time.Since(last) < time.Second; time.Sleep(time.Millisecond) {
		if n := f.drain(); n > 0 {
			arrived += n
			last = time.Now()
		}
	}
	took = last.Sub(begin)
	time.Sleep(100 * time.Millisecond) // entries are written after the release
	var keys []loader.FlowKey
	flows := f.dp.Flows()
	for key := range flows.All() {
		keys = append(keys, key)
	}
	must(f.b, flows.Err())
	for _, key := range keys {
		must(f.b, f.dp.DeleteFlow(key))
	}
	return sent, arrived, len(keys), took
}

// drain counts what has arrived.
func (f *flood) drain() (n int) {
	for {
		frame, _ := f.to.next(f.b)
		if frame == nil {
			return n
		}
		n++
	}
}

// BenchmarkNeighbour counts what a VM's established flow loses while its neighbour
// floods the gateway with new flows as fast as it can.
func BenchmarkNeighbour(b *testing.B) {
	want(b, "flood_neighbour_loss")
	const packets, gap = 5000, time.Millisecond
	conditions := result.Conditions(map[string]any{
		"packets": packets, "gap": gap.String(), "runs": 3,
		"flood": "new UDP flows of the other VM of the segment, raw sockets, as fast as they take them, to a denied port and to allowed ones",
	})
	g := newGateway(b, open, "")
	g.absorb(g.Web1, 80)
	sender, receiver := tapOn(b, g.App2), tapOn(b, g.Web1)
	prefix := "<neighbour"
	counted := func() (n int) {
		for {
			frame, _ := receiver.next(b)
			if frame == nil {
				return n
			}
			if len(frame) > 42+len(prefix) && string(frame[42:42+len(prefix)]) == prefix {
				n++
			}
		}
	}
	probe := datagram(b, g.App2, g.Web1, 5000, 80, prefix)
	for deadline := time.Now().Add(10 * time.Second); counted() == 0; time.Sleep(10 * time.Millisecond) {
		sender.push(b, probe)
		if time.Now().After(deadline) {
			b.Fatal("the neighbour's flow is not decided")
		}
	}
	time.Sleep(100 * time.Millisecond) // until its entry is written and nothing of it is under way
	counted()
	var lost, floods []float64
	for range 3 {
		f := newFlood(&gateway{b: b, Topology: g.Topology, Daemon: g.Daemon, dp: g.dp})
		stop, done := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(done)
			for {
				select {
				case <-stop:
					return
				default:
					f.send()
				}
			}
		}()
		arrived := 0
		for range packets {
			sender.push(b, probe)
			arrived += counted()
			time.Sleep(gap)
		}
		close(stop)
		<-done
		time.Sleep(100 * time.Millisecond)
		arrived += counted()
		lost, floods = append(lost, float64(packets-arrived)), append(floods, float64(f.next))
		progress(b, "%d of %d lost beside %d new flows", packets-arrived, packets, f.next)
	}
	record(b, map[string]result.Figure{
		"flood_neighbour_loss": result.Of("packets", lost), "flood_neighbour_flood": result.Of("new flows sent", floods),
	}, conditions, nil)
}
