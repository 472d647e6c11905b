/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * The undecided: within the sender's budget a pending entry is made and the
 * packet goes up to the daemon, a few of a flow at most. What bridge netfilter
 * cannot hand over is dropped and the daemon told, so that the sender's next
 * try finds a decision.
 */
#ifndef VMGATE_PUNT_H
#define VMGATE_PUNT_H

#include "budget.h"
#include "common.h"
#include "destination.h"
#include "events.h"
#include "flow.h"

#define DEFAULT_BUDGET 1000 /* undecided flows a second, for each sub-budget */

static __always_inline bool daemon_is_silent(const struct packet *pkt, const struct settings *set)
{
	__u32 zero = 0;
	__u64 *beat = bpf_map_lookup_elem(&heartbeat, &zero);

	return !beat || !*beat || elapsed(pkt->now, *beat) > set->heartbeat_timeout;
}

/* Has this end's port a standing verdict that the packet must not pass? What
 * else stands there is for the daemon to weigh. */
static __always_inline bool port_stopped(struct packet *pkt, const struct settings *set, __u32 vm, __be16 port_be)
{
	struct verdict_key key = { .vm = vm, .port = bpf_ntohs(port_be), .proto = pkt->proto };
	struct verdict_entry *entry = bpf_map_lookup_elem(&verdicts, &key);

	if (!entry || entry->verdict != VERDICT_DROP || (entry->expires && pkt->now >= entry->expires))
		return false;
	pkt->cause = entry->cause;
	pkt->owner = entry->owner;
	if (set->mode == MODE_MONITOR)
		return false;
	return true;
}

/* Destinations share a VM's budget by hash, so that a flood towards one leaves
 * room for the others. */
static __always_inline __u32 sub_budget(const struct packet *pkt)
{
	__u32 hash = pkt->dst.w[0];

	hash = (hash ^ pkt->dst.w[1]) * 0x9e3779b1u;
	hash = (hash ^ pkt->dst.w[2]) * 0x9e3779b1u;
	hash = (hash ^ pkt->dst.w[3]) * 0x9e3779b1u;
	hash = (hash ^ ((__u32)pkt->dport << 8 | pkt->proto)) * 0x9e3779b1u;
	return hash >> 28;
}

_Static_assert(SUB_BUDGETS == 1 << (32 - 28), "sub_budget");

/* Takes a token of an undecided flow. */
static __always_inline bool within_budget(const struct packet *pkt)
{
	__u32 vm_id = pkt->vm;
	struct vm *vm = bpf_map_lookup_elem(&vms, &vm_id);

	if (!vm)
		return false;
	return take_token(pkt, sub_budget(pkt), vm->budget ? vm->budget : DEFAULT_BUDGET);
}

/* Makes the entry that the daemon finds the flow by. Returns 0 or the reason
 * that there is none. */
static __always_inline int add_pending(struct packet *pkt, __u32 out_port)
{
	struct pending entry = {
		.first_seen = pkt->now,
		.last_seen = pkt->now,
		.punted = 1,
		.vm = { pkt->vm, pkt->dst_vm },
		.in_port = port.id,
		.out_port = out_port,
		.from = pkt->from,
		.tcp_flags = pkt->tcp_flags,
		.frame_len = pkt->wire,
	};

	if (!within_budget(pkt))
		return REASON_DROP_BUDGET;
	if ((pkt->tcp_flags & (TCP_SYN | TCP_ACK)) == TCP_SYN)
		entry.syn_seq = pkt->seq;
	__builtin_memcpy(entry.src_mac, pkt->src_mac, 6);
	__builtin_memcpy(entry.dst_mac, pkt->dst_mac, 6);
	if (bpf_map_update_elem(&pending, &pkt->key, &entry, BPF_ANY))
		return REASON_DROP_PENDING_FULL;
	return 0;
}

static __always_inline struct pending *find_pending(const struct packet *pkt, const struct settings *set)
{
	struct pending *entry = bpf_map_lookup_elem(&pending, &pkt->key);

	if (!entry || elapsed(pkt->now, entry->first_seen) > set->pending_timeout)
		return NULL;
	return entry;
}

static __always_inline struct decision hold(struct packet *pkt, const struct settings *set, __u32 out_port)
{
	struct pending *entry = find_pending(pkt, set);
	int bad;

	if (entry) {
		if (!pkt->queueable)
			return drop(REASON_DROP_UNDECIDABLE);
		if (entry->punted >= set->held_per_flow)
			return drop(REASON_DROP_HELD);
		__sync_fetch_and_add(&entry->punted, 1);
		entry->last_seen = pkt->now;
	} else {
		if (!set->held_per_flow)
			return drop(REASON_DROP_HELD);
		bad = add_pending(pkt, out_port);
		if (bad)
			return drop(bad);
		if (!pkt->queueable) {
			emit(pkt, EVENT_UNDECIDED, REASON_DROP_UNDECIDABLE);
			return drop(REASON_DROP_UNDECIDABLE);
		}
	}
	return send_up(MARK_PUNT | (pkt->key.vlan >> 16 & MARK_VLAN), REASON_PUNT);
}

/* Passes a packet past the daemon because the operator chose open; a VM under
 * inspection remains so. */
static __always_inline struct decision pass_open(struct packet *pkt, const struct settings *set, __u32 out_port)
{
	if (out_port == PORT_NONE)
		return send_up(MARK_OPEN, REASON_OPEN);
	return deliver_frame(pkt, set, out_port, REASON_OPEN);
}

/* Nobody decides on what goes to many: it is dropped, or flooded where the segment
 * says so, but never past an inspection. */
static __always_inline struct decision multicast(const struct packet *pkt, const struct settings *set)
{
	if (!port.multicast || !is_group_mac(pkt->dst_mac) || !is_group_address(&pkt->dst))
		return drop(REASON_DROP_MULTICAST);
	if (pkt->inspected && set->mode != MODE_MONITOR)
		return drop(REASON_DROP_MULTICAST);
	if (!take_token(pkt, SUB_BUDGETS, MULTICAST_BUDGET))
		return drop(REASON_DROP_BUDGET);
	return flood_control(0);
}

/* A packet of no decided flow, whose source has been checked. */
static __always_inline struct decision undecided(struct packet *pkt, const struct settings *set)
{
	__u32 out_port = PORT_NONE;
	int bad;

	if (is_group_mac(pkt->dst_mac) || is_group_address(&pkt->dst))
		return multicast(pkt, set);
	bad = check_destination(pkt, set, &out_port);
	if (bad)
		return drop(bad);
	if (port_stopped(pkt, set, pkt->vm, pkt->sport) || port_stopped(pkt, set, pkt->dst_vm, pkt->dport))
		return drop(REASON_DROP_VERDICT);
	if (!daemon_is_silent(pkt, set))
		return hold(pkt, set, out_port);
	if (set->new_flows_open)
		return pass_open(pkt, set, out_port);
	return drop(REASON_DROP_DAEMON_DOWN);
}

#endif
