/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* Tells the daemon what happened. An event that finds the ring full is lost
 * and counted under port 0 and its reason. */
#ifndef VMGATE_EVENTS_H
#define VMGATE_EVENTS_H

#include "common.h"
#include "stats.h"

#define NSEC_PER_SEC 1000000000ull

static __always_inline void emit(const struct packet *pkt, enum event_type type, enum reason reason)
{
	struct event *event = bpf_ringbuf_reserve(&events, sizeof(*event), 0);

	if (!event) {
		count_on(0, reason, pkt);
		return;
	}
	event->time = pkt->now;
	event->type = type;
	event->reason = reason;
	event->cause = pkt->cause;
	event->port = port.id;
	event->vm = pkt->vm;
	event->owner = pkt->owner;
	event->rule = pkt->rule;
	event->from = pkt->from;
	__builtin_memcpy(&event->key, &pkt->key, sizeof(event->key));
	__builtin_memcpy(event->src_mac, pkt->src_mac, 6);
	__builtin_memcpy(event->dst_mac, pkt->dst_mac, 6);
	event->ethertype = pkt->ethertype;
	event->frame_len = pkt->len > 0xffff ? 0xffff : pkt->len;
	bpf_ringbuf_submit(event, 0);
}

/* Allows so many events a second for each port and reason. */
static __always_inline bool sampled(const struct packet *pkt, enum reason reason, __u32 limit)
{
	__u32 index = port.id * REASON_MAX + reason;
	struct sample *sample;
	__u64 second;

	if (!limit)
		return false;
	sample = bpf_map_lookup_elem(&samples, &index);
	if (!sample)
		return false;
	second = pkt->now / NSEC_PER_SEC;
	if (sample->second != second) {
		sample->second = second;
		sample->events = 0;
	}
	if (sample->events >= limit)
		return false;
	__sync_fetch_and_add(&sample->events, 1);
	return true;
}

static __always_inline void report_drop(const struct packet *pkt, enum reason reason, __u32 limit)
{
	if (reason == REASON_DROP_UNDECIDABLE || !sampled(pkt, reason, limit))
		return; /* the undecidable have an event of their own */
	emit(pkt, reason == REASON_DROP_SPOOF ? EVENT_SPOOF : EVENT_DROP, reason);
}

#endif
