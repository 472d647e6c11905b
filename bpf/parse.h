/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * Ethernet and VLAN tags. Parsers return 0, or the reason to drop the frame
 * for; what they could not read whole is never forwarded. Input: the frame
 * and a zeroed struct packet; they never read beyond data_end.
 */
#ifndef VMGATE_PARSE_H
#define VMGATE_PARSE_H

#include "common.h"

#define MIN_ETHERTYPE 0x600 /* below it the field is an 802.3 length */

struct vlan_header {
	__be16 tci;
	__be16 type;
};

static __always_inline bool is_vlan(__be16 type)
{
	return type == bpf_htons(ETH_P_8021Q) || type == bpf_htons(ETH_P_8021AD);
}

/* Reads one tag. Bridge netfilter looks behind one 802.1Q tag and no further. */
static __always_inline int parse_tag(struct packet *pkt, void *data, void *data_end, __u32 shift)
{
	struct vlan_header *tag = at(data, data_end, pkt->l3, sizeof(*tag));

	if (!tag)
		return REASON_DROP_MALFORMED;
	if (shift == 0 || pkt->ethertype != bpf_htons(ETH_P_8021Q))
		pkt->queueable = 0;
	pkt->key.vlan |= (__u32)(bpf_ntohs(tag->tci) & 0xfff) << shift;
	pkt->ethertype = tag->type;
	pkt->l3 += sizeof(*tag);
	return 0;
}

static __always_inline int parse_ethernet(struct packet *pkt, void *data, void *data_end)
{
	struct ethhdr *eth = data;
	int bad;

	if ((void *)(eth + 1) > data_end)
		return REASON_DROP_MALFORMED;
	__builtin_memcpy(pkt->src_mac, eth->h_source, 6);
	__builtin_memcpy(pkt->dst_mac, eth->h_dest, 6);
	pkt->ethertype = eth->h_proto;
	pkt->l3 = sizeof(*eth);
	pkt->queueable = 1;
	pkt->key.group = port.group;
	if (is_group_mac(pkt->src_mac))
		return REASON_DROP_MALFORMED;
	if (is_vlan(pkt->ethertype)) {
		bad = parse_tag(pkt, data, data_end, 16);
		if (bad)
			return bad;
		if (is_vlan(pkt->ethertype)) {
			bad = parse_tag(pkt, data, data_end, 0);
			if (bad)
				return bad;
		}
	}
	if (is_vlan(pkt->ethertype))
		return REASON_DROP_UNPARSED;
	if (bpf_ntohs(pkt->ethertype) < MIN_ETHERTYPE)
		return REASON_DROP_ETHERTYPE;
	return 0;
}

#endif
