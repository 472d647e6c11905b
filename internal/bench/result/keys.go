package result

import "fmt"

// Key is a figure that has a target.
type Key struct {
	Name   string
	What   string // for the table in docs/performance.md
	Target float64
	AtMost bool // the target is a ceiling; else a floor
}

// Met says whether a value reaches the target.
func (k Key) Met(value float64) bool {
	if k.AtMost {
		return value <= k.Target
	}
	return value >= k.Target
}

// Wanted writes the target.
func (k Key) Wanted() string {
	if k.AtMost {
		return fmt.Sprintf("≤ %g", k.Target)
	}
	return fmt.Sprintf("≥ %g", k.Target)
}

// Keys are the figures that have targets, in the order of the table.
var Keys = []Key{
	{"forward_vs_bridge", "64-byte packets a second, 1,024 established flows, all checks on, against the kernel's bridge without any filter", 3.0, false},
	{"forward_vs_bare", "the same against a bare XDP redirect", 0.80, false},
	{"drop_vs_bare", "packets of a convicted process dropped, against a bare XDP drop", 0.70, false},
	{"tcx_bulk_vs_bridge", "one TCP stream through the TCX program, offloads on, against the kernel's bridge", 1.0, false},
	{"xdp_ns_over_noop", "nanoseconds of the XDP program on a packet of an established flow, less those of one that does nothing", 70, true},
	{"first_packet_p50_us", "first packet of a new process in, to the same out; introspection included, guest of 60 processes", 150, true},
	{"first_packet_p99_us", "the same", 1000, true},
	{"new_flows_per_s", "new flows a second that are decided and installed, none lost, on two cores that the sender shares", 30_000, false},
	{"flood_neighbour_loss", "packets of an established flow lost while another VM of its segment floods new flows", 0, true},
	{"scale_1m_idle", "forward rate of 1,024 active flows beside 1,000,000 idle ones, over that with none", 0.9, false},
	{"scale_1m_active", "forward rate of 1,000,000 flows in even use, over that of 1,024", 0.35, false},
	{"alert_to_drop_p50_ms", "entry of the offending packet into `ids-in` to the first packet of its process that XDP drops", 2, true},
	{"alert_to_drop_p99_ms", "the same", 2, true},
	{"alert_to_drop_flood_p99_ms", "the same beside a flood of 10,000 packets a second through the engine", 2, true},
	{"ids_down_noticed_ms", "an engine's end to the moment when what is to be inspected is dropped for it, the worst of killed, stopped, and one worker stopped", 100, true},
	{"ids_false_alarms", "how often an engine under full load, with its rules read again every ten seconds, is taken for dead or hung, in ten minutes", 0, true},
	{"paper_victim_packets", "SYNs of a hidden process's flood that its victim sees; the rule lets 10 by", 10, true},
	{"paper_cutoff_ms", "time stamp of the packet that the alert is about to the conviction of its process in force, found in a guest's memory", 50, true},
	{"paper_dropped_in_xdp", "packets of the convicted process that XDP drops in the two seconds after", 1, false},
	{"vmi_discovery_ms", "a guest's kernel found and understood, of 500 processes and 8,100 sockets", 100, true},
	{"vmi_process_list_ms", "its processes listed, over all views", 1, true},
	{"vmi_owner_cold_ms", "the first owner of a port, right after discovery", 5, true},
	{"vmi_owner_warm_p99_us", "the owner of a known port, verified again, by the memory file", 10, true},
	{"vmi_owner_warm_process_p99_us", "the same, through the memory of QEMU's process", 100, true},
	{"vmi_sweep_core_percent", "a sweep each second, of a core", 2, true},
	{"vmi_memory_mib", "what the daemon remembers of the guest", 16, true},
	{"vmi_wrong_attributions", "answers that name another process than the sender, of 10,000 in a guest that forks and sends as fast as it can", 0, true},
	{"vmi_caught_short_lived_percent", "senders that end right after their only packet, and are named nevertheless", 50, false},
}

// Find returns the key of a name.
func Find(name string) (Key, bool) {
	for _, k := range Keys {
		if k.Name == name {
			return k, true
		}
	}
	return Key{}, false
}
