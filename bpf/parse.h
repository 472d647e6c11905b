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
#define MAX_802_3_LENGTH 1500

struct vlan_header {
	__be16 tci;
	__be16 type;
};

static __always_inline bool is_vlan(__be16 type)
{
	return type == bpf_htons(ETH_P_8021Q) || type == bpf_htons(ETH_P_8021AD);
}

/* Notes the tag that type announces; shift says whether it is the outer (16) or
 * the inner one (0). Bridge netfilter looks behind one 802.1Q tag and no further. */
static __always_inline void note_tag(struct packet *pkt, __be16 type, __u16 tci, __u32 shift)
{
	if (shift == 0 || type != bpf_htons(ETH_P_8021Q))
		pkt->queueable = 0;
	pkt->key.vlan |= (__u32)(tci & 0xfff) << shift;
}

static __always_inline int parse_tag(struct packet *pkt, void *data, void *data_end, __u32 shift)
{
	struct vlan_header *tag = at(data, data_end, pkt->l3, sizeof(*tag));

	if (!tag)
		return REASON_DROP_MALFORMED;
	note_tag(pkt, pkt->ethertype, bpf_ntohs(tag->tci), shift);
	pkt->ethertype = tag->type;
	pkt->l3 += sizeof(*tag);
	return 0;
}

/* Spanning tree, IS-IS and the like: nobody judges them, but lengths must not lie. */
static __always_inline int parse_802_3(const struct packet *pkt)
{
	__u32 len = bpf_ntohs(pkt->ethertype);

	if (len > MAX_802_3_LENGTH)
		return REASON_DROP_ETHERTYPE;
	return pkt->l3 + len > pkt->len ? REASON_DROP_MALFORMED : REASON_DROP_LLC;
}

/* stripped is the outer tag if the device has taken it out of the frame: its
 * ethertype << 16 | TCI, both in host order; 0 for none. */
static __always_inline int parse_ethernet(struct packet *pkt, void *data, void *data_end, __u32 stripped)
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
	if (stripped) {
		note_tag(pkt, bpf_htons(stripped >> 16), stripped, 16);
	} else if (is_vlan(pkt->ethertype)) {
		bad = parse_tag(pkt, data, data_end, 16);
		if (bad)
			return bad;
		stripped = 1;
	}
	if (stripped && is_vlan(pkt->ethertype)) {
		bad = parse_tag(pkt, data, data_end, 0);
		if (bad)
			return bad;
	}
	if (is_vlan(pkt->ethertype))
		return REASON_DROP_UNPARSED;
	if (bpf_ntohs(pkt->ethertype) < MIN_ETHERTYPE)
		return parse_802_3(pkt);
	return 0;
}

#endif
