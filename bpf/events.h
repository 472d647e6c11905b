/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* Tells the daemon what happened. An event that finds the ring full is lost
 * and counted under port 0 and its reason. */
#ifndef VMGATE_EVENTS_H
#define VMGATE_EVENTS_H

#include "common.h"
#include "stats.h"

#define NSEC_PER_SEC 1000000000ull

static __always_inline void fill_event(struct event *event, const struct packet *pkt, enum event_type type,
				       enum reason reason)
{
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
}

static __always_inline void emit(const struct packet *pkt, enum event_type type, enum reason reason)
{
	struct event *event = bpf_ringbuf_reserve(&events, sizeof(*event), 0);

	if (!event) {
		count_on(0, reason, pkt);
		return;
	}
	fill_event(event, pkt, type, reason);
	bpf_ringbuf_submit(event, 0);
}

/*
 * Begins the report of a DHCP server's message. Returns NULL, or the event whose
 * message is to be filled with len bytes from the frame's offset off, and then
 * submitted or discarded. The hooks do that: they have helpers that copy.
 */
static __always_inline struct dhcp_event *begin_dhcp(const struct packet *pkt, __u32 *off, __u32 *len)
{
	__u32 begin = pkt->l4 + 8, n = pkt->end - begin; /* behind the UDP header */
	struct dhcp_event *event;

	if (begin >= pkt->end)
		return NULL;
	event = bpf_ringbuf_reserve(&events, sizeof(*event), 0);
	if (!event) {
		count_on(0, REASON_CONTROL, pkt);
		return NULL;
	}
	fill_event(&event->event, pkt, EVENT_DHCP, REASON_CONTROL);
	if (n > DHCP_HEAD)
		n = DHCP_HEAD;
	event->len = n;
	event->pad = 0;
	*off = begin;
	*len = n;
	return event;
}

/* Changes nothing of 1 to DHCP_HEAD, but shows the verifier of Linux 6.1 that it is
 * that; the compiler must not see it, or it would leave it out. */
static __always_inline __u32 len_of_head(__u64 len)
{
	len--;
	asm volatile("" : "+r"(len));
	return (len & (DHCP_HEAD - 1)) + 1;
}

/* Not inlined, so that the struct is in the object's BTF. */
static __noinline void end_dhcp(struct dhcp_event *event, bool copied)
{
	if (copied)
		bpf_ringbuf_submit(event, 0);
	else
		bpf_ringbuf_discard(event, 0);
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
