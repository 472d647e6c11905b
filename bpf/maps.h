/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * Every map of the gateway: key, value, who writes it, what happens when it is
 * full. All are pinned by the loader under the gateway's directory in bpffs.
 */
#ifndef VMGATE_MAPS_H
#define VMGATE_MAPS_H

#include "types.h"
#include "packet.h"

#define DEFINE_MAP(name_, type_, key_, value_, max_, flags_) \
	struct {                                             \
		__uint(type, type_);                         \
		__type(key, key_);                           \
		__type(value, value_);                       \
		__uint(max_entries, max_);                   \
		__uint(map_flags, flags_);                   \
	} name_ SEC(".maps")

/* MAC -> VM. Daemon. Full: refused when the configuration is loaded. */
DEFINE_MAP(vm_macs, BPF_MAP_TYPE_HASH, struct mac_key, struct mac_entry, 16384, 0);
/* VM id -> verdict and budget. Daemon. */
DEFINE_MAP(vms, BPF_MAP_TYPE_ARRAY, __u32, struct vm, MAX_VMS, 0);
/* Allowed source addresses. Daemon; XDP where VM_LEARN. Full: counted, refused. */
DEFINE_MAP(vm_addrs, BPF_MAP_TYPE_LPM_TRIE, struct addr_key, struct addr_entry, 65536, BPF_F_NO_PREALLOC);
/* Port of a VM -> owner and verdict. Daemon. Full: oldest expired first. */
DEFINE_MAP(verdicts, BPF_MAP_TYPE_HASH, struct verdict_key, struct verdict_entry, MAX_VERDICTS, BPF_F_NO_PREALLOC);
/* Owner id -> verdict. Daemon. */
DEFINE_MAP(owners, BPF_MAP_TYPE_ARRAY, __u32, struct owner, MAX_OWNERS, 0);
/* Rule id -> verdict. Daemon. */
DEFINE_MAP(rules, BPF_MAP_TYPE_ARRAY, __u32, struct rule, MAX_RULES, 0);
/* Decided flows. The daemon makes and ends them, XDP keeps state and counters. */
DEFINE_MAP(flows, BPF_MAP_TYPE_HASH, struct flow_key, struct flow, MAX_FLOWS, BPF_F_NO_PREALLOC);
/* Undecided flows. XDP makes them within the VM's budget, the daemon ends them. */
DEFINE_MAP(pending, BPF_MAP_TYPE_HASH, struct flow_key, struct pending, MAX_PENDING, BPF_F_NO_PREALLOC);
/* Port id -> device. Loader. */
DEFINE_MAP(tx_ports, BPF_MAP_TYPE_DEVMAP, __u32, __u32, MAX_PORTS, 0);
DEFINE_MAP(ports, BPF_MAP_TYPE_ARRAY, __u32, struct port, MAX_PORTS, 0);
/* Counters by port and reason, per CPU. XDP and TC. */
DEFINE_MAP(stats, BPF_MAP_TYPE_PERCPU_ARRAY, __u32, struct counter, MAX_PORTS * REASON_MAX, 0);
/* Mutable settings. Daemon. */
DEFINE_MAP(settings, BPF_MAP_TYPE_ARRAY, __u32, struct settings, 1, 0);
/* The daemon's last sign of life, CLOCK_MONOTONIC ns. Daemon. */
DEFINE_MAP(heartbeat, BPF_MAP_TYPE_ARRAY, __u32, __u64, 1, 0);

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 20);
	__type(value, struct event); /* for the bindings; a ring buffer has no value size */
} events SEC(".maps"); /* XDP and TC; lost ones are counted in stats of port 0, by reason */

/*
 * The rest is the kernel programs' own; nobody else reads or writes it.
 */

/* Head of a fragmented datagram -> its ports. XDP. Full: the oldest goes, and
 * the rest of its datagram is dropped. */
DEFINE_MAP(fragments, BPF_MAP_TYPE_LRU_HASH, struct fragment_key, struct fragment, 16384, 0);
/* VM id * BUDGETS + hash of the destination, or SUB_BUDGETS -> token bucket. XDP. */
DEFINE_MAP(budgets, BPF_MAP_TYPE_ARRAY, __u32, struct budget, MAX_VMS * BUDGETS, 0);
/* VM id -> how many addresses were learned. XDP; the loader clears a VM's slot
 * when it forgets the VM's addresses. */
DEFINE_MAP(learned, BPF_MAP_TYPE_ARRAY, __u32, struct learned, MAX_VMS, 0);
/* Port id * REASON_MAX + reason -> events in the current second. XDP and TC. */
DEFINE_MAP(samples, BPF_MAP_TYPE_ARRAY, __u32, struct sample, MAX_PORTS * REASON_MAX, 0);
/* The packet in hand: too large for the stack, and what is read back from a
 * map has no history that the verifier must follow along every path. */
DEFINE_MAP(scratch, BPF_MAP_TYPE_PERCPU_ARRAY, __u32, struct packet, 1, 0);

#endif
