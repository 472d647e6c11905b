/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * Neighbour and router discovery, policed without the daemon, after the same
 * rules as ARP. Every message has hop limit 255 (so no router passed it on)
 * and names no other link-layer address than the sender's own.
 */
#ifndef VMGATE_CONTROL_ND_H
#define VMGATE_CONTROL_ND_H

#include "common.h"
#include "answer.h"
#include "destination.h"
#include "parse_l4.h"

#define ND_HOP_LIMIT 255
#define ND_MAX_OPTIONS 8
#define ND_SOURCE_MAC 1
#define ND_TARGET_MAC 2

struct nd_option {
	__u8 type;
	__u8 len; /* in units of 8 bytes */
	__u8 mac[6];
};

/* Bytes of the message before its options; 0 for none of ours. */
static __always_inline __u32 nd_header_len(__u8 type)
{
	switch (type) {
	case ICMP6_ROUTER_SOLICIT:
		return 8;
	case ICMP6_ROUTER_ADVERT:
		return 16;
	case ICMP6_NEIGHBOUR_SOLICIT:
	case ICMP6_NEIGHBOUR_ADVERT:
		return 24;
	}
	return 0;
}

struct nd_walk {
	struct packet *pkt;
	void *data;
	void *data_end;
};

/* Checks the option at the cursor and steps over it. The last option leaves
 * the cursor at the packet's end; a bad one leaves it elsewhere. */
static long check_nd_option(__u32 index __attribute__((unused)), struct nd_walk *walk)
{
	struct packet *pkt = walk->pkt;
	__u32 off = pkt->cursor, size;
	struct nd_option *opt;

	if (off >= pkt->end)
		return 1;
	opt = at(walk->data, walk->data_end, off, sizeof(*opt));
	if (!opt)
		return 1;
	size = opt->len * 8;
	if (!size || off + size > pkt->end)
		return 1;
	if (opt->type == ND_SOURCE_MAC || opt->type == ND_TARGET_MAC) {
		if (opt->len != 1 || !same_mac(opt->mac, pkt->src_mac))
			return 1;
		if (opt->type == ND_SOURCE_MAC && is_unspecified(&pkt->src))
			return 1; /* RFC 4861, 7.1.1 */
	}
	pkt->cursor = off + size;
	return 0;
}

/* By bpf_loop, so that the verifier walks one option and not eight. */
static __always_inline int check_nd_options(struct packet *pkt, void *data, void *data_end, __u32 header)
{
	struct nd_walk walk = { .pkt = pkt, .data = data, .data_end = data_end };

	pkt->cursor = pkt->l4 + header;
	bpf_loop(ND_MAX_OPTIONS, check_nd_option, &walk, 0);
	return pkt->cursor == pkt->end ? 0 : REASON_DROP_CONTROL;
}

static __always_inline struct decision neighbour_solicit(struct packet *pkt, const struct settings *set, void *data,
							 void *data_end)
{
	union address *target = at(data, data_end, pkt->l4 + 8, sizeof(*target));
	struct addr_entry *holder;
	union address sought;
	__u8 mac[6], with[6];

	if (!target)
		return drop(REASON_DROP_CONTROL);
	__builtin_memcpy(&sought, target, sizeof(sought));
	if (is_group_address(&sought))
		return drop(REASON_DROP_CONTROL);
	holder = find_address(0, &sought);
	if (holder && holder->vm == pkt->vm)
		return absorb();
	if (holder) {
		__builtin_memcpy(mac, holder->mac, 6);
		if (answers_for(pkt, mac, with))
			return answer_solicitation(pkt, set, data, data_end, mac, with);
		return ask_holder(pkt, set, data, data_end, mac);
	}
	if (!is_group_mac(pkt->dst_mac) && !pkt->readdressed)
		return deliver_control(pkt, set);
	if (mac_of_link_local(&sought, mac)) {
		if (same_mac(mac, pkt->src_mac))
			return absorb();
		if (answers_for(pkt, mac, with))
			return answer_solicitation(pkt, set, data, data_end, mac, with);
		return ask_holder(pkt, set, data, data_end, mac);
	}
	return flood_control(MARK_CONTROL_ROUTER);
}

static __always_inline struct decision neighbour_advert(struct packet *pkt, const struct settings *set, void *data,
							void *data_end)
{
	union address *target = at(data, data_end, pkt->l4 + 8, sizeof(*target));
	union address claimed;

	if (!target || is_unspecified(&pkt->src))
		return drop(REASON_DROP_CONTROL);
	__builtin_memcpy(&claimed, target, sizeof(claimed));
	if (is_group_address(&claimed) || is_unspecified(&claimed))
		return drop(REASON_DROP_CONTROL);
	if (!may_use(pkt, &claimed))
		return drop(REASON_DROP_SPOOF);
	if (is_group_mac(pkt->dst_mac))
		return flood_control(0);
	if (pkt->readdressed)
		return absorb(); /* behind a proxy nobody may learn its MAC */
	return deliver_control(pkt, set);
}

static __always_inline struct decision router_advert(struct packet *pkt, const struct settings *set)
{
	if (!(pkt->vm_flags & VM_ROUTER) || !is_link_local(&pkt->src))
		return drop(REASON_DROP_CONTROL);
	if (is_group_mac(pkt->dst_mac))
		return flood_control(0);
	return deliver_control(pkt, set);
}

static __always_inline struct decision control_nd(struct packet *pkt, const struct settings *set, void *data,
						  void *data_end)
{
	struct icmp_header *icmp = at(data, data_end, pkt->l4, sizeof(*icmp));
	__u32 header = nd_header_len(pkt->icmp_type);
	int bad;

	if (!icmp || icmp->code || !header || pkt->hop_limit != ND_HOP_LIMIT)
		return drop(REASON_DROP_CONTROL); /* redirects too: they have no header_len */
	bad = check_nd_options(pkt, data, data_end, header);
	if (bad)
		return drop(bad);
	switch (pkt->icmp_type) {
	case ICMP6_NEIGHBOUR_SOLICIT:
		return neighbour_solicit(pkt, set, data, data_end);
	case ICMP6_NEIGHBOUR_ADVERT:
		return neighbour_advert(pkt, set, data, data_end);
	case ICMP6_ROUTER_ADVERT:
		return router_advert(pkt, set);
	}
	return flood_control(MARK_CONTROL_ROUTER);
}

#endif
