/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* Counts a packet under the port it came by (or leaves by, in TC egress) and a
 * reason. Every packet is counted exactly once per hook. */
#ifndef VMGATE_STATS_H
#define VMGATE_STATS_H

#include "common.h"

static __always_inline void count_on(__u32 port_id, enum reason reason, const struct packet *pkt)
{
	__u32 index = port_id * REASON_MAX + reason;
	struct counter *counter = bpf_map_lookup_elem(&stats, &index);

	if (!counter)
		return;
	counter->packets += pkt->segments;
	counter->bytes += pkt->wire;
}

static __always_inline void count(enum reason reason, const struct packet *pkt)
{
	count_on(port.id, reason, pkt);
}

#endif
