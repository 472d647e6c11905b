/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * Decides on one frame that a vNIC received. Knows nothing of the hook that it
 * is called from: the frame's bounds and a scratch packet in, a decision out.
 */
#ifndef VMGATE_CLASSIFY_H
#define VMGATE_CLASSIFY_H

#include "common.h"
#include "control_arp.h"
#include "control_dhcp.h"
#include "control_nd.h"
#include "flow.h"
#include "fragment.h"
#include "key.h"
#include "parse.h"
#include "parse_ip.h"
#include "parse_l4.h"
#include "proxy.h"
#include "punt.h"
#include "related.h"
#include "source.h"

/* Parses an IP packet up to its flow key. */
static __always_inline int parse_flow(struct packet *pkt, void *data, void *data_end)
{
	int bad;

	if (pkt->ethertype == bpf_htons(ETH_P_IP))
		bad = parse_ipv4(pkt, data, data_end);
	else
		bad = parse_ipv6(pkt, data, data_end);
	if (bad)
		return bad;
	barrier();
	if (same_address(&pkt->src, &pkt->dst))
		return REASON_DROP_MALFORMED;
	bad = parse_l4(pkt, data, data_end);
	if (bad)
		return bad;
	if (pkt->fragment) {
		bad = join_fragment(pkt);
		if (bad)
			return bad;
	}
	pkt->from = order_key(&pkt->key, &pkt->src, &pkt->dst, pkt->sport, pkt->dport, pkt->proto);
	barrier();
	return 0;
}

static __always_inline bool is_ip(const struct packet *pkt)
{
	return pkt->ethertype == bpf_htons(ETH_P_IP) || pkt->ethertype == bpf_htons(ETH_P_IPV6);
}

/* Group membership is for routers; nothing else may go to a group unasked. */
static __always_inline struct decision control_multicast(const struct packet *pkt)
{
	if (!is_group_mac(pkt->dst_mac) || !is_group_address(&pkt->dst))
		return drop(REASON_DROP_CONTROL);
	return flood_control(MARK_CONTROL_ROUTER);
}

/* Control traffic over IP, of a sender who may bear its address. */
static __always_inline struct decision control(struct packet *pkt, const struct settings *set, void *data,
					       void *data_end)
{
	switch (pkt->kind) {
	case KIND_ND:
		return control_nd(pkt, set, data, data_end);
	case KIND_MULTICAST:
		return control_multicast(pkt);
	case KIND_ICMP_ERROR:
		return related(pkt, set, data, data_end);
	}
	return control_dhcp(pkt, set, data, data_end);
}

/* Everything but the common case: who is it, may he, and what is it? */
static __always_inline struct decision examine(struct packet *pkt, const struct settings *set, void *data,
					       void *data_end)
{
	struct decision decision;
	int bad = check_sender(pkt, set);

	if (bad)
		return drop(bad);
	if (pkt->kind == KIND_ARP)
		return within_control_budget(pkt, control_arp(pkt, set, data, data_end));
	if (pkt->kind == KIND_OTHER)
		return drop(REASON_DROP_ETHERTYPE);
	bad = check_address(pkt);
	if (bad)
		return drop(bad);
	if (pkt->kind == KIND_FLOW)
		return undecided(pkt, set);
	decision = within_control_budget(pkt, control(pkt, set, data, data_end));
	pkt->leases = pkt->kind == KIND_DHCP_SERVER && decision.action != ACTION_DROP && may_lease(pkt);
	return decision;
}

static __always_inline struct decision classify_ip(struct packet *pkt, const struct settings *set, void *data,
						   void *data_end)
{
	struct decision decision;
	int bad = parse_flow(pkt, data, data_end);

	if (bad)
		return drop(bad);
	find_receiver(pkt);
	if (is_disguised(pkt))
		pkt->kind = KIND_FLOW;
	barrier();
	if (pkt->kind != KIND_FLOW || !established(pkt, set, &decision))
		decision = examine(pkt, set, data, data_end);
	if (pkt->fragment == FRAGMENT_FIRST && decision.action != ACTION_DROP)
		remember_head(pkt);
	return decision;
}

/* The operator's emergency: by destination if that is known, else by the
 * kernel's bridge. */
static __always_inline struct decision let_pass(const struct packet *pkt)
{
	struct mac_entry *to = find_mac(pkt, pkt->dst_mac);

	if (!to || to->port == PORT_NONE || is_group_mac(pkt->dst_mac))
		return send_up(MARK_OPEN, REASON_OPEN);
	return deliver(to->port, REASON_OPEN);
}

/* stripped: see parse_ethernet. */
static __always_inline struct decision classify(struct packet *pkt, const struct settings *set, void *data,
						void *data_end, __u32 stripped)
{
	struct decision decision;
	int bad = parse_ethernet(pkt, data, data_end, stripped);

	if (set->mode == MODE_CLOSE) {
		pkt->cause = CAUSE_OPERATOR;
		return drop(REASON_DROP_VERDICT);
	}
	if (bad)
		return drop(bad);
	barrier();
	if (set->mode == MODE_OPEN)
		return let_pass(pkt);
	if (is_ip(pkt)) {
		decision = classify_ip(pkt, set, data, data_end);
	} else {
		if (pkt->ethertype == bpf_htons(ETH_P_ARP))
			pkt->kind = KIND_ARP;
		decision = examine(pkt, set, data, data_end);
	}
	return rewrite_macs(pkt, data, data_end, &decision) ? decision : drop(REASON_DROP_MALFORMED);
}

#endif
