//go:build ignore

// SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0
/*
 * The gateway's programs, one object. Each attachment loads its own copy with
 * its own port; all copies share the maps.
 */
#include "common.h"
#include "classify.h"
#include "egress.h"
#include "ids.h"
#include "quick.h"
#include "skb.h"
#include "xdp.h"

/* Returns this CPU's scratch packet, emptied, for a frame of len bytes. */
static __always_inline struct packet *new_packet(__u32 len)
{
	__u32 zero = 0;
	struct packet *pkt = bpf_map_lookup_elem(&scratch, &zero);

	if (!pkt)
		return NULL;
	__builtin_memset(pkt, 0, offsetof(struct packet, quoted));
	pkt->len = len;
	pkt->wire = len;
	pkt->segments = 1;
	pkt->now = clock_now();
	return pkt;
}

static __always_inline struct settings *get_settings(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&settings, &zero);
}

SEC("xdp")
int vmgate_ingress(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *data_end = (void *)(long)ctx->data_end;
	struct settings *set = get_settings();
	struct packet *pkt;
	int action;

	if (!set)
		return XDP_DROP;
	action = quick(data, data_end, set);
	if (action != NOT_QUICK)
		return action;
	pkt = new_packet(data_end - data);
	if (!pkt)
		return XDP_DROP;
	pkt->decision = classify(pkt, set, data, data_end, 0);
	return carry_out_xdp(ctx, pkt, set);
}

SEC("tc")
int vmgate_tcx(struct __sk_buff *skb)
{
	struct packet *pkt = new_packet(skb->len);
	struct settings *set = get_settings();
	__u32 stripped = stripped_tag(skb);
	void *data, *data_end;

	if (!pkt || !set)
		return TC_ACT_SHOT;
	if (pull_headers(skb)) {
		data = (void *)(long)skb->data;
		data_end = (void *)(long)skb->data_end;
		measure(pkt, skb, data, data_end, stripped);
		pkt->decision = classify(pkt, set, data, data_end, stripped);
	} else {
		pkt->decision = drop(REASON_DROP_INGRESS);
	}
	return carry_out_skb(skb, pkt, set);
}

SEC("xdp")
int vmgate_ids(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *data_end = (void *)(long)ctx->data_end;
	struct packet *pkt = new_packet(data_end - data);
	struct settings *set = get_settings();

	if (!pkt || !set)
		return XDP_DROP;
	pkt->decision = classify_return(pkt, set, data, data_end);
	return carry_out_xdp(ctx, pkt, set);
}

/* For the far end of a veth: a redirect into it needs an XDP program there. */
SEC("xdp")
int vmgate_pass(struct xdp_md *ctx __attribute__((unused)))
{
	return XDP_PASS;
}

/* Sends what XDP could not send itself: the port takes skbs only. */
static __always_inline int deliver_skb(struct __sk_buff *skb, __u32 out_port)
{
	enum reason reason = REASON_FORWARD;
	struct packet *pkt = new_packet(skb->len);
	int action;

	if (!pkt)
		return TC_ACT_SHOT;
	action = redirect_skb(skb, pkt, out_port, &reason);
	if (action == TC_ACT_SHOT)
		count(reason, pkt); /* what goes on was counted in XDP */
	return action;
}

SEC("tc")
int vmgate_mark(struct __sk_buff *skb)
{
	enum reason reason;
	__u32 mark = take_mark(skb, &reason);
	struct packet *pkt;

	skb->mark = mark;
	if ((mark & MARK_CLASS) == MARK_DELIVER)
		return deliver_skb(skb, mark & MARK_PORT);
	if (mark)
		return TC_ACT_OK;
	pkt = new_packet(skb->len);
	if (pkt)
		count(reason, pkt);
	return TC_ACT_SHOT;
}

/* vmgate_mark for the IDS ports: nothing else of theirs goes up but the canaries. */
SEC("tc")
int vmgate_deliver(struct __sk_buff *skb)
{
	enum reason reason;
	__u32 mark = take_mark(skb, &reason);

	skb->mark = 0;
	if ((mark & MARK_CLASS) == MARK_DELIVER)
		return deliver_skb(skb, mark & MARK_PORT);
	return TC_ACT_OK;
}

SEC("tc")
int vmgate_egress(struct __sk_buff *skb)
{
	struct packet *pkt;
	struct settings *set;
	enum reason reason;
	int action;

	if (skb->mark == MARK_REDIRECT) {
		skb->mark = 0;
		return TC_ACT_OK; /* decided and counted where it came in */
	}
	pkt = new_packet(skb->len);
	set = get_settings();
	if (!pkt || !set)
		return TC_ACT_SHOT;
	action = judge_egress(skb, pkt, set, &reason);
	if (port.proxy && action == TC_ACT_OK)
		action = leave_by_proxy(skb, pkt, &reason);
	count(reason, pkt);
	if (reason >= REASON_DROP_VERDICT)
		report_drop(pkt, reason, set->event_sample);
	return action;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
