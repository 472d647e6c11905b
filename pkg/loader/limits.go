package loader

import "github.com/vmgate/vmgate/bpf"

// Sizes of the id spaces, from bpf/types.h. Id 0 is never given out.
const (
	MaxPorts  = 80
	MaxVMs    = 4096
	MaxRules  = 4096
	MaxOwners = 65536
)

// MaxIDS is how many engines can share the traffic to be inspected, IDSSlots how
// finely it is shared; from bpf/types.h.
const (
	MaxIDS   = 8
	IDSSlots = 64
)

// Capacities of the maps, from bpf/types.h.
const (
	MaxFlows    = 1 << 20
	MaxPending  = 1 << 16
	MaxVerdicts = 1 << 18
)

// Marks of packets between the kernel's ingress and egress hooks. MarkClass is
// the mask of the class; MarkPunt has the VLAN id in the bits of MarkVLAN.
const (
	MarkClass    = uint32(bpf.VmgateMarkMARK_CLASS)
	MarkVLAN     = uint32(bpf.VmgateMarkMARK_VLAN)
	MarkPunt     = uint32(bpf.VmgateMarkMARK_PUNT)      // undecided, set at ingress: for the daemon's queue
	MarkControl  = uint32(bpf.VmgateMarkMARK_CONTROL)   // policed control traffic, set at ingress
	MarkOpen     = uint32(bpf.VmgateMarkMARK_OPEN)      // set at ingress: the daemon is silent and the operator chose open
	MarkForward  = uint32(bpf.VmgateMarkMARK_FORWARD)   // set by the daemon on release: forward
	MarkCheckIn  = uint32(bpf.VmgateMarkMARK_CHECK_IN)  // set by the daemon on release, with the flow's IDSSlot: to ids-in
	MarkCheckOut = uint32(bpf.VmgateMarkMARK_CHECK_OUT) // the same: to ids-out
)
