// Package bpf holds the gateway's kernel programs and their generated Go
// bindings.
//
// The object has five programs: vmgate_ingress (XDP on every vNIC), vmgate_ids
// (XDP on the gateway's ends of the IDS ports), vmgate_pass (XDP on the far end
// of a veth, which redirects need), vmgate_mark and vmgate_egress (TC ingress
// and egress of every vNIC). Each attachment loads its own copy with the
// variable "port" set; the maps are shared. types.h describes every value that
// crosses between the kernel and the daemon, maps.h every map.
//
// The programs need Linux 5.17 (bpf_loop), and the verifiers of Debian 12 (6.1)
// and 13 (6.12) take them: TestGuest boots such a kernel to see it. Before 6.1
// is untried. Where the C says one bound twice, an older verifier has forgotten
// the first.
//
// Loading and attaching is pkg/loader's task; nothing else should import this
// package.
package bpf
