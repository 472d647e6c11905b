package loader

import (
	"fmt"

	"github.com/vmgate/vmgate/bpf"
)

// Reason says where a counted packet went; the numbers are those of enum reason
// in bpf/types.h.
type Reason uint32

// reasonMax is the number of slots for each port in the counters.
const reasonMax = uint32(bpf.VmgateReasonREASON_MAX)

// firstDrop is where the reasons of dropped packets begin.
const firstDrop = Reason(bpf.VmgateReasonREASON_DROP_VERDICT)

var reasonNames = [reasonMax]string{
	bpf.VmgateReasonREASON_FORWARD:             "forward",
	bpf.VmgateReasonREASON_CHECK:               "check",
	bpf.VmgateReasonREASON_PUNT:                "punt",
	bpf.VmgateReasonREASON_CONTROL:             "control",
	bpf.VmgateReasonREASON_CONTROL_ABSORBED:    "control-absorbed",
	bpf.VmgateReasonREASON_IDS_RETURN:          "ids-return",
	bpf.VmgateReasonREASON_OPEN:                "open",
	bpf.VmgateReasonREASON_MONITOR:             "monitor",
	bpf.VmgateReasonREASON_EGRESS:              "egress",
	bpf.VmgateReasonREASON_EGRESS_CHECK:        "egress-check",
	bpf.VmgateReasonREASON_CANARY:              "canary",
	bpf.VmgateReasonREASON_CONTROL_ANSWERED:    "control-answered",
	bpf.VmgateReasonREASON_DROP_VERDICT:        "drop-verdict",
	bpf.VmgateReasonREASON_DROP_MALFORMED:      "drop-malformed",
	bpf.VmgateReasonREASON_DROP_UNPARSED:       "drop-unparsed",
	bpf.VmgateReasonREASON_DROP_ETHERTYPE:      "drop-ethertype",
	bpf.VmgateReasonREASON_DROP_FRAGMENT:       "drop-fragment",
	bpf.VmgateReasonREASON_DROP_UNKNOWN_SOURCE: "drop-unknown-source",
	bpf.VmgateReasonREASON_DROP_SPOOF:          "drop-spoof",
	bpf.VmgateReasonREASON_DROP_UNKNOWN_DEST:   "drop-unknown-dest",
	bpf.VmgateReasonREASON_DROP_MULTICAST:      "drop-multicast",
	bpf.VmgateReasonREASON_DROP_CONTROL:        "drop-control",
	bpf.VmgateReasonREASON_DROP_BUDGET:         "drop-budget",
	bpf.VmgateReasonREASON_DROP_HELD:           "drop-held",
	bpf.VmgateReasonREASON_DROP_PENDING_FULL:   "drop-pending-full",
	bpf.VmgateReasonREASON_DROP_DAEMON_DOWN:    "drop-daemon-down",
	bpf.VmgateReasonREASON_DROP_IDS_DOWN:       "drop-ids-down",
	bpf.VmgateReasonREASON_DROP_IDS_LOOP:       "drop-ids-loop",
	bpf.VmgateReasonREASON_DROP_EGRESS:         "drop-egress",
	bpf.VmgateReasonREASON_DROP_INGRESS:        "drop-ingress",
	bpf.VmgateReasonREASON_DROP_UNDECIDABLE:    "drop-undecidable",
	bpf.VmgateReasonREASON_DROP_RELATED:        "drop-related",
	bpf.VmgateReasonREASON_DROP_STRIPPED:       "drop-stripped",
	bpf.VmgateReasonREASON_DROP_LLC:            "drop-llc",
	bpf.VmgateReasonREASON_DROP_TOO_BIG:        "drop-too-big",
}

// String returns the reason as users see it, such as "forward" or "drop-spoof".
func (r Reason) String() string {
	if uint32(r) < reasonMax && reasonNames[r] != "" {
		return reasonNames[r]
	}
	return fmt.Sprintf("reason-%d", uint32(r))
}

// Dropped reports whether packets counted under r ended here.
func (r Reason) Dropped() bool { return r >= firstDrop }

// Reasons returns all reasons in their order.
func Reasons() []Reason {
	var all []Reason
	for r, name := range reasonNames {
		if name != "" {
			all = append(all, Reason(r))
		}
	}
	return all
}

// PortCounter counts packets of one port and reason.
type PortCounter struct {
	PortID         uint32 // 0: not of a port; there, lost events
	Reason         Reason
	Packets, Bytes uint64
}
