// Package metrics offers the gateway's state to Prometheus. Times are measured by
// calls; everything else is read from its source when Prometheus asks, so that
// nothing is counted twice and nothing goes stale.
package metrics

import (
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/vmgate/vmgate/internal/punt"
)

// PacketCount is one counter of the data plane.
type PacketCount struct {
	Segment string // name; ids-in or ids-out for the IDS ports
	Verdict string // what happened to the packets: forward, check, drop, punt, …
	Reason  string // the counter's name
	Packets uint64
	Bytes   uint64
}

// MapUse says how full a map is.
type MapUse struct {
	Name     string
	Entries  int
	Capacity int
}

// Sources are asked at each scrape, from any goroutine and also at once; nil ones
// are left out. A segment, verdict and reason, or a map name, must come once.
type Sources struct {
	Packets    func() []PacketCount
	Punt       func() punt.Stats
	Maps       func() []MapUse
	IDSUp      func() bool
	EventsLost func() uint64 // events that did not reach the event log
}

// Metrics takes the measurements of decisions.
type Metrics struct {
	decisions     *prometheus.HistogramVec
	introspection *prometheus.HistogramVec
	sweeps        *prometheus.HistogramVec
	refused       *prometheus.CounterVec
	ids           *prometheus.CounterVec
	clearances    *prometheus.CounterVec
}

// New registers all metrics with registry. It fails if the registry has them already.
func New(registry prometheus.Registerer, sources Sources) (*Metrics, error) {
	m := &Metrics{
		decisions: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "vmgate_decision_seconds",
			Help:    "Time from reading a held packet to its release or drop.",
			Buckets: prometheus.ExponentialBuckets(50e-6, 2, 16), // 50 µs to 1.6 s
		}, []string{"verdict"}),
		introspection: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "vmgate_introspection_seconds",
			Help:    "Time of one look-up of a port's owner in a VM's memory.",
			Buckets: prometheus.ExponentialBuckets(10e-6, 2, 16), // 10 µs to 0.33 s
		}, []string{"result"}),
		sweeps: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "vmgate_sweep_seconds",
			Help:    "Time of one sweep over the processes and sockets of a VM.",
			Buckets: prometheus.ExponentialBuckets(500e-6, 2, 14), // 0.5 ms to 4 s
		}, []string{"vm"}),
		refused: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "vmgate_api_refused_total",
			Help: "Calls of the API that were refused before they were answered.",
		}, []string{"reason"}),
		ids: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "vmgate_ids_changes_total",
			Help: "Changes of the IDS engine's state: up, down (ended), hung.",
		}, []string{"state"}),
		clearances: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "vmgate_clearances_total",
			Help: "Flows that left the IDS as clean (given), or had to go back (taken).",
		}, []string{"change"}),
	}
	for _, c := range []prometheus.Collector{m.decisions, m.introspection, m.sweeps, m.refused, m.ids, m.clearances, sources} {
		if err := registry.Register(c); err != nil {
			return nil, fmt.Errorf("cannot register the metrics: %w", err)
		}
	}
	return m, nil
}

// ObserveDecision counts a decision and the time that its first packet was held.
func (m *Metrics) ObserveDecision(verdict string, held time.Duration) {
	m.decisions.WithLabelValues(verdict).Observe(held.Seconds())
}

// ObserveIntrospection counts an owner look-up; result is its state: known, none
// or unavailable.
func (m *Metrics) ObserveIntrospection(result string, took time.Duration) {
	m.introspection.WithLabelValues(result).Observe(took.Seconds())
}

// ObserveSweep counts a sweep over a VM and its time.
func (m *Metrics) ObserveSweep(vm string, took time.Duration) {
	m.sweeps.WithLabelValues(vm).Observe(took.Seconds())
}

// CountIDS counts a change of the engine's state: up, down or hung.
func (m *Metrics) CountIDS(state string) { m.ids.WithLabelValues(state).Inc() }

// CountClearance counts a clearance of a flow: given or taken.
func (m *Metrics) CountClearance(change string) { m.clearances.WithLabelValues(change).Inc() }

// CountRefused counts a call that the API refused; reason is one of a few fixed
// words.
func (m *Metrics) CountRefused(reason string) { m.refused.WithLabelValues(reason).Inc() }
