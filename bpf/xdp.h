/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * Does with an XDP frame what was decided. What differs between XDP and TCX is
 * here and in skb.h; all that decides knows of neither.
 */
#ifndef VMGATE_XDP_H
#define VMGATE_XDP_H

#include "common.h"
#include "events.h"
#include "stats.h"

/* Passes a frame up with its mark in front. Not inlined, so that enum mark is
 * in the object's BTF and so in the bindings. */
static __noinline int pass_marked(struct xdp_md *ctx, enum mark mark, __u32 tag)
{
	struct meta *meta;

	if (bpf_xdp_adjust_meta(ctx, -(int)sizeof(*meta)))
		return XDP_DROP;
	meta = (void *)(long)ctx->data_meta;
	if ((void *)(meta + 1) > (void *)(long)ctx->data)
		return XDP_DROP;
	meta->magic = META_MAGIC;
	meta->mark = mark;
	meta->tag = tag;
	return XDP_PASS;
}

static __always_inline __u32 outer_tag(const struct packet *pkt)
{
	return pkt->l3 > sizeof(struct ethhdr) ? META_TAGGED | pkt->key.vlan >> 16 : 0;
}

/* A port that takes no XDP frame gets it by TC ingress (vmgate_mark, vmgate_deliver). */
static __always_inline int by_stack(struct xdp_md *ctx, const struct packet *pkt, __u32 out_port)
{
	struct port *to = bpf_map_lookup_elem(&ports, &out_port);

	if (!to || !(to->flags & PORT_STACK))
		return XDP_DROP;
	return pass_marked(ctx, MARK_DELIVER | (out_port & MARK_PORT), outer_tag(pkt));
}

static __always_inline void report_lease_xdp(struct xdp_md *ctx, const struct packet *pkt)
{
	struct dhcp_event *event;
	__u32 off, len;

	event = begin_dhcp(pkt, &off, &len);
	if (!event)
		return;
	end_dhcp(event, !bpf_xdp_load_bytes(ctx, off, event->message, len_of_head(len)));
}

/*
 * Does what was decided; counts and reports it. The one exit of both programs.
 * The decision is read back from the scratch packet, so that the verifier walks
 * this code once and not once for each place that decides.
 */
static __always_inline int carry_out_xdp(struct xdp_md *ctx, struct packet *pkt, const struct settings *set)
{
	enum reason reason;
	int action = XDP_DROP;

	barrier();
	reason = pkt->decision.reason;
	if (pkt->leases)
		report_lease_xdp(ctx, pkt);
	if (pkt->decision.action == ACTION_REDIRECT) {
		action = bpf_redirect_map(&tx_ports, pkt->decision.out_port, XDP_DROP);
		if (action != XDP_REDIRECT)
			action = by_stack(ctx, pkt, pkt->decision.out_port);
		if (action == XDP_DROP)
			reason = REASON_DROP_UNKNOWN_DEST;
	} else if (pkt->decision.action == ACTION_UP) {
		action = pass_marked(ctx, pkt->decision.mark, outer_tag(pkt));
		if (action != XDP_PASS)
			reason = REASON_DROP_INGRESS;
	}
	count(reason, pkt);
	if (reason >= REASON_DROP_VERDICT)
		report_drop(pkt, reason, set->event_sample);
	return action;
}

#endif
