/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* Token buckets: what a VM may make others do in a second. */
#ifndef VMGATE_BUDGET_H
#define VMGATE_BUDGET_H

#include "common.h"
#include "events.h"

/* Frames a second and VM that reach others without a decision: ARP, discovery,
 * DHCP, group membership, ICMP errors, and multicast where it is flooded. */
#define CONTROL_BUDGET 500
#define MULTICAST_BUDGET 5000

/* Takes a token from one of the sender's buckets, which holds a second's worth. */
static __always_inline bool take_token(const struct packet *pkt, __u32 which, __u32 per_second)
{
	__u32 index = pkt->vm * BUDGETS + which;
	struct budget *budget = bpf_map_lookup_elem(&budgets, &index);
	__u64 now = pkt->now, token = NSEC_PER_SEC / per_second, before, from;

	if (!budget)
		return false;
	before = budget->full_at;
	from = before > now ? before : now;
	if (from + token > now + NSEC_PER_SEC)
		return false;
	/* Losing the race to another CPU costs the sender one retry. */
	return __sync_val_compare_and_swap(&budget->full_at, before, from + token) == before;
}

/* A flood of control traffic ends here and not at its neighbours. */
static __always_inline struct decision within_control_budget(const struct packet *pkt, struct decision decision)
{
	if (decision.action == ACTION_DROP || take_token(pkt, SUB_BUDGETS, CONTROL_BUDGET))
		return decision;
	return drop(REASON_DROP_BUDGET);
}

#endif
