package loader

import "golang.org/x/sys/unix"

// Now returns the monotonic clock in nanoseconds, the clock of
// bpf_ktime_get_ns and of all times in the maps.
func Now() uint64 {
	var ts unix.Timespec
	// It fails only for a bad pointer or an unknown clock.
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts)
	return uint64(ts.Nano())
}

// Heartbeat tells the kernel that the daemon lives. Without it new flows are
// treated as Settings.NewFlowsOpen says after Settings.HeartbeatTimeout.
func (d *Dataplane) Heartbeat() error { return d.heartbeat.put(0, clockValue(Now())) }

// clockValue is the heartbeat map's value: a time.
type clockValue uint64

func (v clockValue) wire() uint64 { return uint64(v) }

func clockFromWire(w uint64) clockValue { return clockValue(w) }
