package app

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/vmgate/vmgate/internal/config"
	"github.com/vmgate/vmgate/internal/metrics"
	"github.com/vmgate/vmgate/internal/punt"
	"github.com/vmgate/vmgate/pkg/loader"
)

// openMetrics makes the metrics, and listens for Prometheus where configured.
func (a *App) openMetrics(cfg *config.Config, undo *cleanups) (err error) {
	a.registry = prometheus.NewRegistry()
	a.metrics, err = metrics.New(a.registry, metrics.Sources{
		Packets: a.packetCounts,
		Punt:    func() punt.Stats { return a.queues.Stats() },
		Maps:    a.mapUse,
		IDSUp:   a.ids.isUp,
		EventsLost: func() uint64 {
			if a.journal.log == nil {
				return 0
			}
			return a.journal.log.Lost()
		},
	})
	if err != nil || cfg.Metrics.Listen == "" {
		return err
	}
	if a.exposition, err = metrics.Listen(cfg.Metrics.Listen); err != nil {
		return err
	}
	undo.add(func() error { a.exposition.Close(); return nil }) // closed already if it was served
	return nil
}

// packetCounts reads the data plane's counters. What cannot be read is missing.
func (a *App) packetCounts() []metrics.PacketCount {
	var counts []metrics.PacketCount
	for _, c := range a.counters() {
		counts = append(counts, metrics.PacketCount{
			Segment: c.segment, Verdict: c.verdict, Reason: c.Reason.String(), Packets: c.Packets, Bytes: c.Bytes,
		})
	}
	return counts
}

type counter struct {
	loader.PortCounter
	segment, verdict string
}

// counters reads the counters that are not zero, with names instead of numbers.
func (a *App) counters() []counter {
	all, err := a.dp.Counters()
	if err != nil {
		a.log.Error("cannot read the counters", "error", err)
		return nil
	}
	inv := a.state.Load().inv
	var named []counter
	for _, c := range all {
		if c.Packets == 0 {
			continue
		}
		n := counter{PortCounter: c, verdict: verdictOf(c.Reason)}
		switch {
		case c.PortID >= firstIDSPort:
			n.segment = idsPortName(c.PortID)
		case inv.segments[c.PortID] != nil:
			n.segment = inv.segments[c.PortID].Name
		default:
			n.segment = "none"
		}
		named = append(named, n)
	}
	return named
}

// verdictOf says what became of packets that were counted under a reason.
func verdictOf(r loader.Reason) string {
	if r.Dropped() {
		return "drop"
	}
	switch name := r.String(); name {
	case "punt", "check":
		return name
	case "egress-check":
		return "check"
	}
	return "forward"
}

func (a *App) mapUse() []metrics.MapUse {
	c := a.keeper.last()
	return []metrics.MapUse{
		{Name: "flows", Entries: c.flows, Capacity: loader.MaxFlows},
		{Name: "pending", Entries: c.pending, Capacity: loader.MaxPending},
		{Name: "verdicts", Entries: c.verdicts, Capacity: loader.MaxVerdicts},
		{Name: "owners", Entries: len(a.owners.all()), Capacity: loader.MaxOwners},
	}
}

// idsPortName names an IDS port: ids-in and ids-out, ids-in1 and ids-out1 of the
// second engine, and so on.
func idsPortName(id uint32) string {
	number := int(id-firstIDSPort) / 2
	if id == idsInPort(number) {
		return "ids-in" + numbered(number)
	}
	return "ids-out" + numbered(number)
}
