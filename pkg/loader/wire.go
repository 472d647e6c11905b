package loader

import (
	"bytes"

	"github.com/vmgate/vmgate/bpf"
)

// The wire forms, generated from bpf/types.h. Verdicts and causes are plain
// numbers to callers.
type (
	wireFlowKey      = bpf.VmgateFlowKey
	wireFlow         = bpf.VmgateFlow
	wirePending      = bpf.VmgatePending
	wireVM           = bpf.VmgateVm
	wireMACKey       = bpf.VmgateMacKey
	wireMACEntry     = bpf.VmgateMacEntry
	wireAddrKey      = bpf.VmgateAddrKey
	wireAddrEntry    = bpf.VmgateAddrEntry
	wireRule         = bpf.VmgateRule
	wireOwner        = bpf.VmgateOwner
	wireVerdictKey   = bpf.VmgateVerdictKey
	wireVerdictEntry = bpf.VmgateVerdictEntry
	wireSettings     = bpf.VmgateSettings
	wireEvent        = bpf.VmgateEvent
	wireDHCPEvent    = bpf.VmgateDhcpEvent
	wirePort         = bpf.VmgatePort
	wirePortConfig   = bpf.VmgatePortConfig
	wireCounter      = bpf.VmgateCounter
	wireVerdict      = bpf.VmgateVerdict
	wireCause        = bpf.VmgateCause
)

// cstr returns what a C string holds before its terminator.
func cstr(c []int8) string {
	b := make([]byte, len(c))
	for i, v := range c {
		b[i] = byte(v)
	}
	b, _, _ = bytes.Cut(b, []byte{0})
	return string(b)
}

// putCstr fills dst with s, cut off so that a terminator remains.
func putCstr(dst []int8, s string) {
	for i := range min(len(s), len(dst)-1) {
		dst[i] = int8(s[i])
	}
}

// flag returns bit if set is true, or 0.
func flag[T ~uint8 | ~uint32](set bool, bit T) T {
	if set {
		return bit
	}
	return 0
}
