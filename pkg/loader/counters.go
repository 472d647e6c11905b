package loader

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
)

// Counters returns the counters that are not zero, summed over CPUs.
func (d *Dataplane) Counters() ([]PortCounter, error) {
	m := d.maps["stats"]
	cpus, err := ebpf.PossibleCPU()
	if err != nil {
		return nil, fmt.Errorf("cannot read counters: %w", err)
	}
	var (
		counters []PortCounter
		cursor   ebpf.MapBatchCursor
		keys     = make([]uint32, m.MaxEntries())
		values   = make([]wireCounter, int(m.MaxEntries())*cpus)
	)
	n, err := m.BatchLookup(&cursor, keys, values, nil)
	if err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return nil, fmt.Errorf("cannot read counters: %w", err)
	}
	for i, key := range keys[:n] {
		c := PortCounter{PortID: key / reasonMax, Reason: Reason(key % reasonMax)}
		for _, v := range values[i*cpus : (i+1)*cpus] {
			c.Packets += v.Packets
			c.Bytes += v.Bytes
		}
		if c.Packets != 0 {
			counters = append(counters, c)
		}
	}
	return counters, nil
}
