package metrics

import "github.com/prometheus/client_golang/prometheus"

func describe(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(name, help, labels, nil)
}

// The metrics that are read at scrape time.
var (
	packetsDesc     = describe("vmgate_packets_total", "Packets by what happened to them and why.", "segment", "verdict", "reason")
	bytesDesc       = describe("vmgate_bytes_total", "Bytes of the packets of vmgate_packets_total.", "segment", "verdict", "reason")
	depthDesc       = describe("vmgate_punt_queue_depth", "Packets held undecided now.")
	receivedDesc    = describe("vmgate_punt_received_total", "Held packets that the daemon has read.")
	puntDroppedDesc = describe("vmgate_punt_dropped_total", "Punted packets lost before a decision: queue full, socket buffer full, malformed, or let go of by the kernel (refused).", "reason")
	entriesDesc     = describe("vmgate_map_entries", "Entries of a map.", "map")
	capacityDesc    = describe("vmgate_map_capacity", "Entries that a map has room for.", "map")
	idsUpDesc       = describe("vmgate_ids_up", "1 if the IDS is inspecting, 0 if it is down.")
	eventsLostDesc  = describe("vmgate_events_lost_total", "Events that did not reach the event log.")
)

// Describe implements prometheus.Collector.
func (s Sources) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{
		packetsDesc, bytesDesc, depthDesc, receivedDesc, puntDroppedDesc,
		entriesDesc, capacityDesc, idsUpDesc, eventsLostDesc,
	} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (s Sources) Collect(ch chan<- prometheus.Metric) {
	counter := func(d *prometheus.Desc, v uint64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
	}
	gauge := func(d *prometheus.Desc, v int, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, float64(v), labels...)
	}
	if s.Packets != nil {
		for _, p := range s.Packets() {
			counter(packetsDesc, p.Packets, p.Segment, p.Verdict, p.Reason)
			counter(bytesDesc, p.Bytes, p.Segment, p.Verdict, p.Reason)
		}
	}
	if s.Punt != nil {
		stats := s.Punt()
		gauge(depthDesc, stats.Depth)
		counter(receivedDesc, stats.Received)
		counter(puntDroppedDesc, stats.QueueDropped, "queue-full")
		counter(puntDroppedDesc, stats.UserDropped, "buffer-full")
		counter(puntDroppedDesc, stats.Malformed, "malformed")
		counter(puntDroppedDesc, stats.Refused, "refused")
	}
	if s.Maps != nil {
		for _, m := range s.Maps() {
			gauge(entriesDesc, m.Entries, m.Name)
			gauge(capacityDesc, m.Capacity, m.Name)
		}
	}
	if s.IDSUp != nil {
		up := 0
		if s.IDSUp() {
			up = 1
		}
		gauge(idsUpDesc, up)
	}
	if s.EventsLost != nil {
		counter(eventsLostDesc, s.EventsLost())
	}
}
