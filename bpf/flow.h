/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * Decided flows: one hash look-up, then a handful of array look-ups whose
 * strictest verdict is the flow's, so that one write to an array cuts off a
 * VM, a rule or a process over all its flows.
 */
#ifndef VMGATE_FLOW_H
#define VMGATE_FLOW_H

#include "common.h"
#include "destination.h"
#include "parse_l4.h"

static __always_inline bool tcp_is_established(const struct flow *flow)
{
	__u32 a = flow->dir[0].tcp_flags, b = flow->dir[1].tcp_flags;

	return (a & b & TCP_ACK) && !((a | b) & (TCP_FIN | TCP_RST));
}

static __always_inline __u64 idle_timeout(const struct flow *flow, const struct settings *set, __u8 proto)
{
	switch (proto) {
	case IPPROTO_TCP:
		return tcp_is_established(flow) ? set->tcp_established : set->tcp_transient;
	case IPPROTO_UDP:
	case IPPROTO_UDPLITE:
		return set->udp_idle;
	}
	return set->other_idle;
}

static __always_inline bool flow_expired(const struct flow *flow, const struct settings *set, __u8 proto, __u64 now)
{
	__u64 a = flow->dir[0].last_seen, b = flow->dir[1].last_seen;
	__u64 seen = a > b ? a : b;

	if (seen < flow->created)
		seen = flow->created;
	if (flow->expires && now >= flow->expires)
		return true;
	return elapsed(now, seen) > idle_timeout(flow, set, proto);
}

/* Returns the live flow of key, NULL if there is none. */
static __always_inline struct flow *find_flow(const struct flow_key *key, const struct settings *set, __u64 now)
{
	struct flow *flow = bpf_map_lookup_elem(&flows, key);

	if (!flow || flow_expired(flow, set, key->proto, now))
		return NULL;
	return flow;
}

/* A port is reused: a bare SYN that is not the flow's own, sent again, begins
 * another connection. */
static __always_inline bool is_new_connection(const struct packet *pkt, const struct flow *flow, __u32 from)
{
	if (pkt->proto != IPPROTO_TCP || (pkt->tcp_flags & (TCP_SYN | TCP_ACK)) != TCP_SYN)
		return false;
	return flow->initiator != from || !flow->syn_seq || flow->syn_seq != pkt->seq;
}

struct judgement {
	enum verdict verdict;
	enum cause cause;
	bool undecided;
};

static __always_inline void weigh(struct judgement *j, enum verdict verdict, enum cause cause)
{
	if (verdict == VERDICT_UNDECIDED)
		j->undecided = true;
	if (verdict > j->verdict) {
		j->verdict = verdict;
		j->cause = cause;
	}
}

static __always_inline void weigh_end(struct judgement *j, const struct flow_dir *dir)
{
	__u32 vm_id = dir->vm, owner_id = dir->owner;
	struct vm *vm = bpf_map_lookup_elem(&vms, &vm_id);
	struct owner *owner = bpf_map_lookup_elem(&owners, &owner_id);

	if (vm)
		weigh(j, vm->verdict, vm->cause);
	else
		j->undecided = true;
	if (owner)
		weigh(j, owner->verdict, owner->cause);
	else
		j->undecided = true;
}

/* The strictest verdict over all scopes. Anything undecided makes the flow
 * undecided, unless something says drop. */
static __always_inline enum verdict judge(struct packet *pkt, const struct flow *flow)
{
	__u32 rule_id = flow->rule;
	struct rule *rule = bpf_map_lookup_elem(&rules, &rule_id);
	struct judgement j = {};

	weigh(&j, flow->verdict, flow->cause);
	if (rule)
		weigh(&j, rule->verdict, rule->cause);
	else
		j.undecided = true;
	weigh_end(&j, &flow->dir[0]);
	weigh_end(&j, &flow->dir[1]);
	pkt->cause = j.cause;
	pkt->rule = rule_id;
	if (j.verdict >= VERDICT_DROP)
		return VERDICT_DROP;
	if (j.undecided)
		return VERDICT_UNDECIDED;
	/* Read only for what would be checked: the others pay nothing for it. */
	if (j.verdict == VERDICT_CHECK && flow->cleared)
		return VERDICT_FORWARD;
	return j.verdict;
}

static __always_inline struct decision carry_out(const struct settings *set, const struct flow_key *key,
						 enum verdict verdict, bool from_initiator, __u32 out_port,
						 enum reason passed)
{
	if (verdict == VERDICT_FORWARD)
		return deliver(out_port, passed);
	if (set->mode == MODE_MONITOR)
		return deliver(out_port, REASON_MONITOR);
	if (verdict == VERDICT_CHECK)
		return to_ids(set, slot_of_flow(key), from_initiator, out_port);
	return drop(REASON_DROP_VERDICT);
}

/* Counts without atomics: the packets of one direction come from one queue of
 * one vNIC, so one CPU writes them. */
static __always_inline void keep_state(struct flow_dir *dir, const struct packet *pkt)
{
	dir->packets += pkt->segments;
	dir->bytes += pkt->wire;
	dir->last_seen = pkt->now;
	if (pkt->tcp_flags & ~dir->tcp_flags)
		dir->tcp_flags |= pkt->tcp_flags;
}

/*
 * The common case. Returns true and the decision if a live, decided flow has
 * the packet's key, and MACs and port are those the flow was decided with
 * (which is why the source needs no further check).
 */
static __always_inline bool established(struct packet *pkt, const struct settings *set, struct decision *decision)
{
	struct flow *flow = find_flow(&pkt->key, set, pkt->now);
	__u32 from = pkt->from & 1;
	struct flow_dir *dir;
	enum verdict verdict;

	if (!flow)
		return false;
	dir = &flow->dir[from];
	if (!same_mac(dir->src_mac, pkt->src_mac) || !same_mac(dir->dst_mac, pkt->dst_mac) ||
	    dir->in_port != port.id || is_new_connection(pkt, flow, from))
		return false;
	verdict = judge(pkt, flow);
	if (verdict == VERDICT_UNDECIDED)
		return false;
	pkt->vm = dir->vm;
	pkt->owner = dir->owner;
	keep_state(dir, pkt);
	*decision = carry_out(set, &pkt->key, verdict, from == flow->initiator, dir->out_port, REASON_FORWARD);
	return true;
}

#endif
