package metrics

import (
	"context"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/vmgate/vmgate/internal/punt"
)

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func testSources() Sources {
	return Sources{
		Packets: func() []PacketCount {
			return []PacketCount{
				{Segment: "apps", Verdict: "forward", Reason: "forward", Packets: 10, Bytes: 1000},
				{Segment: "apps", Verdict: "drop", Reason: "spoof", Packets: 2, Bytes: 120},
			}
		},
		Punt: func() punt.Stats {
			return punt.Stats{Received: 9, Malformed: 3, Refused: 4, QueueDropped: 1, UserDropped: 2, Depth: 5}
		},
		Maps:       func() []MapUse { return []MapUse{{Name: "flows", Entries: 7, Capacity: 1048576}} },
		IDSUp:      func() bool { return true },
		EventsLost: func() uint64 { return 6 },
	}
}

const exposition = `
# HELP vmgate_bytes_total Bytes of the packets of vmgate_packets_total.
# TYPE vmgate_bytes_total counter
vmgate_bytes_total{reason="forward",segment="apps",verdict="forward"} 1000
vmgate_bytes_total{reason="spoof",segment="apps",verdict="drop"} 120
# HELP vmgate_events_lost_total Events that did not reach the event log.
# TYPE vmgate_events_lost_total counter
vmgate_events_lost_total 6
# HELP vmgate_ids_up 1 if the IDS is inspecting, 0 if it is down.
# TYPE vmgate_ids_up gauge
vmgate_ids_up 1
# HELP vmgate_map_capacity Entries that a map has room for.
# TYPE vmgate_map_capacity gauge
vmgate_map_capacity{map="flows"} 1.048576e+06
# HELP vmgate_map_entries Entries of a map.
# TYPE vmgate_map_entries gauge
vmgate_map_entries{map="flows"} 7
# HELP vmgate_packets_total Packets by what happened to them and why.
# TYPE vmgate_packets_total counter
vmgate_packets_total{reason="forward",segment="apps",verdict="forward"} 10
vmgate_packets_total{reason="spoof",segment="apps",verdict="drop"} 2
# HELP vmgate_punt_dropped_total Punted packets lost before a decision: queue full, socket buffer full, malformed, or let go of by the kernel (refused).
# TYPE vmgate_punt_dropped_total counter
vmgate_punt_dropped_total{reason="buffer-full"} 2
vmgate_punt_dropped_total{reason="malformed"} 3
vmgate_punt_dropped_total{reason="queue-full"} 1
vmgate_punt_dropped_total{reason="refused"} 4
# HELP vmgate_punt_queue_depth Packets held undecided now.
# TYPE vmgate_punt_queue_depth gauge
vmgate_punt_queue_depth 5
# HELP vmgate_punt_received_total Held packets that the daemon has read.
# TYPE vmgate_punt_received_total counter
vmgate_punt_received_total 9
`

func TestMetrics_ExposeTheSources(t *testing.T) {
	registry := prometheus.NewPedanticRegistry()
	_, err := New(registry, testSources())
	check(t, err)
	check(t, testutil.GatherAndCompare(registry, strings.NewReader(exposition)))
	problems, err := testutil.GatherAndLint(registry)
	check(t, err)
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}

func TestMetrics_NoSourceNoSeries(t *testing.T) {
	registry := prometheus.NewPedanticRegistry()
	_, err := New(registry, Sources{IDSUp: func() bool { return false }})
	check(t, err)
	check(t, testutil.GatherAndCompare(registry, strings.NewReader(`
# HELP vmgate_ids_up 1 if the IDS is inspecting, 0 if it is down.
# TYPE vmgate_ids_up gauge
vmgate_ids_up 0
`)))
}

func TestNew_RefusesASecondTime(t *testing.T) {
	registry := prometheus.NewRegistry()
	_, err := New(registry, Sources{})
	check(t, err)
	if _, err := New(registry, Sources{}); err == nil {
		t.Error("the same metrics were registered twice")
	}
}

// serve runs the endpoint and returns its URL and a function that stops it.
func serve(t *testing.T, g prometheus.Gatherer) (url string, stop func() error) {
	t.Helper()
	l, err := Listen("127.0.0.1:0")
	check(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- Serve(ctx, l, g) }()
	return "http://" + l.Addr().String(), func() error {
		cancel()
		return <-done
	}
}

func get(t *testing.T, url string) (int, string) {
	t.Helper()
	resp, err := http.Get(url)
	check(t, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	check(t, err)
	return resp.StatusCode, string(body)
}

func TestServe_TextHasTimesAndSources(t *testing.T) {
	registry := prometheus.NewRegistry()
	m, err := New(registry, testSources())
	check(t, err)
	m.ObserveDecision("forward", 300*time.Microsecond)
	m.ObserveDecision("forward", 3*time.Millisecond)
	m.ObserveDecision("drop", time.Second)
	m.ObserveIntrospection("known", 70*time.Microsecond)

	url, stop := serve(t, registry)
	status, text := get(t, url+"/metrics")
	if status != http.StatusOK {
		t.Fatalf("status %d: %s", status, text)
	}
	for _, line := range []string{
		`vmgate_decision_seconds_bucket{verdict="forward",le="0.0004"} 1`,
		`vmgate_decision_seconds_count{verdict="forward"} 2`,
		`vmgate_decision_seconds_sum{verdict="drop"} 1`,
		`vmgate_introspection_seconds_bucket{result="known",le="8e-05"} 1`,
		`vmgate_packets_total{reason="spoof",segment="apps",verdict="drop"} 2`,
		`vmgate_ids_up 1`,
	} {
		if !strings.Contains(text, line+"\n") {
			t.Errorf("no line %q in\n%s", line, text)
		}
	}
	if status, _ := get(t, url+"/debug/pprof/"); status != http.StatusNotFound {
		t.Errorf("another path answers %d, want 404", status)
	}
	check(t, stop())
	if _, err := http.Get(url + "/metrics"); err == nil {
		t.Error("the endpoint answers after it was stopped")
	}
}

func TestListen_SaysWhichAddressIsTaken(t *testing.T) {
	l, err := Listen("127.0.0.1:0")
	check(t, err)
	defer l.Close()
	second, err := Listen(l.Addr().String())
	if err == nil {
		_ = second.Close()
		t.Fatal("the same address was opened twice")
	}
	if !strings.Contains(err.Error(), l.Addr().String()) || !strings.Contains(err.Error(), "metrics.listen") {
		t.Errorf("error %q does not say what to change", err)
	}
}
