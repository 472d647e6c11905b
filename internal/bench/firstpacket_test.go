package bench_test

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vmgate/vmgate/internal/bench/result"
	"github.com/vmgate/vmgate/internal/lab"
	"github.com/vmgate/vmgate/internal/lab/daemon"
)

const (
	guestProcesses = 60
	firstRuns      = 3
	firstSamples   = 100 // in a run
)

// traced is a configuration whose one policy rule asks for the process of a guest.
const traced = `gateway:
  pins: PINS
  state: DIR/state
  run: DIR/run
segments:
  - {name: apps, vnic: gw-apps, subnets: [10.77.0.0/24], reflect: true, datapath: xdp}
  - {name: web, vnic: gw-web, subnets: [10.77.0.0/24], datapath: xdp}
vms:
  - {id: app3, segment: apps, macs: ["02:77:00:00:00:13"], addresses: {static: [10.77.0.13]}, memory: {file: MEMORY}}
  - {id: web1, segment: web, macs: ["02:77:00:00:00:21"], addresses: {static: [10.77.0.21]}}
policy:
  default: deny
  rules:
    - {name: allow, to: {vm: web1}, protocol: tcp, ports: [80], action: allow}
decision: {deadline: 2s}
`

// BenchmarkFirstPacket measures from the first packet of a new process into the
// gateway to the same packet out of it: held, traced to its process in the guest's
// memory, decided and released.
func BenchmarkFirstPacket(b *testing.B) {
	want(b, "first_packet_p50_us", "first_packet_p99_us")
	if err := lab.GuestSupport(""); err != nil {
		b.Skip(err)
	}
	conditions := result.Conditions(map[string]any{
		"guest_processes": guestProcesses, "samples_a_run": firstSamples, "runs": firstRuns, "guest": lab.Acceleration(),
		"from": "the kernel's time stamp of the SYN at the vSwitch's end of the gateway's vNIC, to the same at the other vSwitch's",
	})
	f := newTraced(b)
	var medians, nines []float64
	traced := 0
	for run := range firstRuns {
		var took []float64
		for range firstSamples {
			took = append(took, float64(f.sample().Nanoseconds())/1000)
		}
		slices.Sort(took)
		medians, nines = append(medians, percentile(took, 50)), append(nines, percentile(took, 99))
		progress(b, "%d/%d p50 %.0f µs, p99 %.0f µs", run+1, firstRuns, medians[run], nines[run])
	}
	flows, err := f.Client.Flows(b.Context())
	must(b, err)
	for _, flow := range flows {
		if flow.Src.VM == "app3" && flow.Src.Process != nil {
			traced++
		}
	}
	conditions["flows_traced"] = traced
	if traced == 0 {
		b.Fatal("no flow was traced to its process")
	}
	record(b, map[string]result.Figure{
		"first_packet_p50_us": result.Of("µs", medians), "first_packet_p99_us": result.Of("µs", nines),
	}, conditions, nil)
}

// tracedGateway is a gateway with a guest whose memory it looks into.
type tracedGateway struct {
	*gateway
	guest   *lab.Guest
	in, out *tap
}

func newTraced(b *testing.B) *tracedGateway {
	b.Helper()
	f := startTraced(b, traced, "")
	ctx, cancel := context.WithTimeout(b.Context(), 2*time.Minute)
	defer cancel()
	_, _, err := f.guest.Run(ctx, "i=$(ls -d /proc/[0-9]* | wc -l); while [ $i -lt 60 ]; do sleep 100000 >/dev/null 2>&1 & i=$((i+1)); done")
	must(b, err)
	f.listen(80, func(conn net.Conn) { conn.Close() })
	return f
}

// startTraced boots the guest and starts gatewayd with a configuration, and rules for
// its engine if it has one, until the guest is understood.
func startTraced(b *testing.B, configuration, rules string) *tracedGateway {
	b.Helper()
	topology, err := lab.NewTopology(b.Context(), lab.Namespaces, nil)
	must(b, err)
	b.Cleanup(func() { must(b, topology.Close()) })
	workload, err := lab.BuildWorkload(b.Context())
	must(b, err)
	host, err := topology.Apps.AddGuest(b.Context(), lab.Host{
		Name: "app3", MAC: net.HardwareAddr{2, 0x77, 0, 0, 0, 0x13},
		V4: netip.MustParsePrefix("10.77.0.13/24"), V6: netip.MustParsePrefix("fd77::13/64"),
	}, workload, nil)
	must(b, err)
	program, err := daemon.Build(b.Context(), b.TempDir())
	must(b, err)
	d, err := daemon.New(topology.Gateway, program)
	must(b, err)
	b.Cleanup(func() { must(b, d.Close()) })
	text := strings.NewReplacer("PINS", d.Pins, "DIR", d.Dir, "MEMORY", host.Guest.MemoryFile()).Replace(configuration)
	must(b, os.WriteFile(d.Config, []byte(text), 0o600))
	must(b, os.WriteFile(d.File("local.rules"), []byte(rules), 0o644))
	f := &tracedGateway{gateway: &gateway{b: b, Topology: topology, Daemon: d}, guest: host.Guest}
	ctx, cancel := context.WithTimeout(b.Context(), 2*time.Minute)
	defer cancel()
	must(b, d.Start())
	must(b, d.Await(ctx, nil))
	for ready := false; !ready; time.Sleep(50 * time.Millisecond) {
		vms, err := d.Client.VMs(ctx)
		must(b, err)
		for _, vm := range vms {
			ready = ready || vm.ID == "app3" && vm.Memory == "ready"
		}
	}
	must(b, topology.Apps.Namespace.Do(func() error { f.in = openTap(b, topology.Apps.Port); return nil }))
	must(b, topology.Web.Namespace.Do(func() error { f.out = openTap(b, topology.Web.Port); return nil }))
	f.in.outgoing = true
	return f
}

// listen serves TCP on a port of web1 until the benchmark ends.
func (f *tracedGateway) listen(port int, serve func(net.Conn)) {
	f.b.Helper()
	must(f.b, f.Web1.Namespace.Do(func() error {
		l, err := net.Listen("tcp4", fmt.Sprintf(":%d", port))
		if err == nil {
			f.b.Cleanup(func() { l.Close() })
			go func() {
				for {
					conn, err := l.Accept()
					if err != nil {
						return
					}
					go serve(conn)
				}
			}()
		}
		return err
	}))
}

// sample starts a process that connects and follows its SYN.
func (f *tracedGateway) sample() time.Duration {
	f.b.Helper()
	ctx, cancel := context.WithTimeout(f.b.Context(), time.Minute)
	defer cancel()
	p, err := f.guest.Start(ctx, "bench-client", "connect", "10.77.0.21:80")
	must(f.b, err)
	_, err = p.Wait(ctx)
	must(f.b, err)
	in, source := f.firstSYN(f.in, 0)
	out, _ := f.firstSYN(f.out, source)
	if in.IsZero() || out.IsZero() || out.Before(in) {
		f.b.Fatalf("SYN in at %v, out at %v", in, out)
	}
	for _, t := range []*tap{f.in, f.out} {
		for frame, _ := t.next(f.b); frame != nil; {
			frame, _ = t.next(f.b)
		}
	}
	return out.Sub(in)
}

// firstSYN is when the first SYN passed, from a port if that is not 0.
func (f *tracedGateway) firstSYN(t *tap, from uint16) (time.Time, uint16) {
	f.b.Helper()
	for {
		frame, at := t.next(f.b)
		if frame == nil {
			return time.Time{}, 0
		}
		if len(frame) < 54 || frame[23] != 6 || frame[47]&0x12 != 0x02 {
			continue
		}
		if source := uint16(frame[34])<<8 | uint16(frame[35]); from == 0 || source == from {
			return at, source
		}
	}
}
