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

/* Returns this CPU's scratch packet, emptied, for a frame of len bytes. */
static __always_inline struct packet *new_packet(__u32 len)
{
	__u32 zero = 0;
	struct packet *pkt = bpf_map_lookup_elem(&scratch, &zero);

	if (!pkt)
		return NULL;
	__builtin_memset(pkt, 0, offsetof(struct packet, quoted));
	pkt->len = len;
	pkt->now = clock_now();
	return pkt;
}

static __always_inline struct settings *get_settings(void)
{
	__u32 zero = 0;

	return bpf_map_lookup_elem(&settings, &zero);
}

/* Passes a frame up with its mark in front. Not inlined, so that enum mark is
 * in the object's BTF and so in the bindings. */
static __noinline int pass_marked(struct xdp_md *ctx, enum mark mark)
{
	struct meta *meta;

	if (bpf_xdp_adjust_meta(ctx, -(int)sizeof(*meta)))
		return XDP_DROP;
	meta = (void *)(long)ctx->data_meta;
	if ((void *)(meta + 1) > (void *)(long)ctx->data)
		return XDP_DROP;
	meta->magic = META_MAGIC;
	meta->mark = mark;
	return XDP_PASS;
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
	if (pkt->decision.action == ACTION_REDIRECT) {
		action = bpf_redirect_map(&tx_ports, pkt->decision.out_port, XDP_DROP);
		if (action != XDP_REDIRECT)
			reason = REASON_DROP_UNKNOWN_DEST;
	} else if (pkt->decision.action == ACTION_UP) {
		action = pass_marked(ctx, pkt->decision.mark);
		if (action != XDP_PASS)
			reason = REASON_DROP_INGRESS;
	}
	count(reason, pkt->len);
	if (reason >= REASON_DROP_VERDICT)
		report_drop(pkt, reason, set->event_sample);
	return action;
}

SEC("xdp")
int vmgate_ingress(struct xdp_md *ctx)
{
	void *data = (void *)(long)ctx->data, *data_end = (void *)(long)ctx->data_end;
	struct packet *pkt = new_packet(data_end - data);
	struct settings *set = get_settings();

	if (!pkt || !set)
		return XDP_DROP;
	pkt->decision = classify(pkt, set, data, data_end);
	return carry_out_xdp(ctx, pkt, set);
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

SEC("tc")
int vmgate_mark(struct __sk_buff *skb)
{
	__u32 mark = take_mark(skb);

	skb->mark = mark;
	if (mark)
		return TC_ACT_OK;
	count(REASON_DROP_INGRESS, skb->len);
	return TC_ACT_SHOT;
}

SEC("tc")
int vmgate_egress(struct __sk_buff *skb)
{
	struct packet *pkt = new_packet(skb->len);
	struct settings *set = get_settings();
	enum reason reason;
	int action;

	if (!pkt || !set)
		return TC_ACT_SHOT;
	action = judge_egress(skb, pkt, set, &reason);
	count(reason, pkt->len);
	if (reason >= REASON_DROP_VERDICT)
		report_drop(pkt, reason, set->event_sample);
	return action;
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
