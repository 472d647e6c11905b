/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * ICMP errors pass if they quote a packet of a live flow and go to the one who
 * sent it; they share that flow's verdict.
 */
#ifndef VMGATE_RELATED_H
#define VMGATE_RELATED_H

#include "common.h"
#include "destination.h"
#include "flow.h"
#include "key.h"
#include "parse_ip.h"

#define ICMP_HEADER 8
#define QUOTED_L4 8 /* what every error quotes of the header behind IP */

/* Reads the quoted IP header; returns the offset of what follows it, 0 if it
 * is none that a flow could have sent. */
static __always_inline __u32 quoted_header(struct packet *pkt, void *data, void *data_end, __u8 *proto)
{
	__u32 off = pkt->l4 + ICMP_HEADER;

	if (pkt->ethertype == bpf_htons(ETH_P_IP)) {
		struct iphdr *ip = at(data, data_end, off, sizeof(*ip));

		if (!ip || ip->version != 4 || ip->ihl < 5 || (bpf_ntohs(ip->frag_off) & IPV4_OFFSET_MASK))
			return 0;
		set_ipv4(&pkt->quoted_src, ip->saddr);
		set_ipv4(&pkt->quoted_dst, ip->daddr);
		*proto = ip->protocol;
		return off + ip->ihl * 4;
	} else {
		struct ipv6hdr *ip = at(data, data_end, off, sizeof(*ip));

		if (!ip || ip->version != 6)
			return 0;
		__builtin_memcpy(&pkt->quoted_src, &ip->saddr, 16);
		__builtin_memcpy(&pkt->quoted_dst, &ip->daddr, 16);
		*proto = ip->nexthdr;
		return off + sizeof(*ip);
	}
}

static __always_inline bool has_ports(__u8 proto)
{
	return proto == IPPROTO_TCP || proto == IPPROTO_UDP || proto == IPPROTO_UDPLITE || proto == IPPROTO_SCTP;
}

/* Makes the key of the quoted packet. */
static __always_inline bool read_quoted(struct packet *pkt, void *data, void *data_end)
{
	__be16 sport = 0, dport = 0, *l4;
	__u8 proto = 0;
	__u32 off;

	off = quoted_header(pkt, data, data_end, &proto);
	pkt->cursor = off;
	off = pkt->cursor;
	if (!off || off + QUOTED_L4 > pkt->end)
		return false;
	l4 = at(data, data_end, off, QUOTED_L4);
	if (!l4 || same_address(&pkt->quoted_src, &pkt->quoted_dst))
		return false;
	if (has_ports(proto)) {
		sport = l4[0];
		dport = l4[1];
	} else if ((proto == IPPROTO_ICMP || proto == IPPROTO_ICMPV6) && is_echo(proto, *(__u8 *)l4)) {
		sport = dport = l4[2];
	}
	pkt->quoted_from = order_key(&pkt->quoted, &pkt->quoted_src, &pkt->quoted_dst, sport, dport, proto);
	pkt->quoted.vlan = pkt->key.vlan;
	pkt->quoted.group = pkt->key.group;
	pkt->quoted.pad = 0;
	return true;
}

static __always_inline struct decision related(struct packet *pkt, const struct settings *set, void *data,
					       void *data_end)
{
	__u32 out_port = PORT_NONE;
	enum verdict verdict;
	struct flow *flow;
	int bad;

	if (pkt->ethertype == bpf_htons(ETH_P_IP) && pkt->icmp_type == ICMP4_REDIRECT)
		return drop(REASON_DROP_CONTROL);
	if (!read_quoted(pkt, data, data_end) || !same_address(&pkt->quoted_src, &pkt->dst))
		return drop(REASON_DROP_RELATED);
	flow = find_flow(&pkt->quoted, set, pkt->now);
	if (!flow)
		return drop(REASON_DROP_RELATED);
	verdict = judge(pkt, flow);
	if (verdict == VERDICT_UNDECIDED)
		return drop(REASON_DROP_RELATED);
	bad = check_destination(pkt, set, &out_port);
	if (bad)
		return drop(bad);
	/* It travels against the packet that it quotes. */
	return carry_out(set, &pkt->quoted, verdict, pkt->quoted_from != flow->initiator, out_port, REASON_CONTROL);
}

#endif
