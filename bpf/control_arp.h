/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * ARP, policed without the daemon: who speaks must be who he says; questions
 * go to the holder alone, claims to one's own address to all.
 */
#ifndef VMGATE_CONTROL_ARP_H
#define VMGATE_CONTROL_ARP_H

#include "common.h"
#include "answer.h"
#include "destination.h"

#define ARP_ETHERNET 1
#define ARP_REQUEST 1
#define ARP_REPLY 2

static __always_inline bool well_formed_arp(const struct packet *pkt, const struct arp_packet *arp)
{
	return arp->hardware == bpf_htons(ARP_ETHERNET) && arp->protocol == bpf_htons(ETH_P_IP) &&
	       arp->hardware_len == 6 && arp->protocol_len == 4 &&
	       (arp->op == bpf_htons(ARP_REQUEST) || arp->op == bpf_htons(ARP_REPLY)) &&
	       same_mac(arp->sender_mac, pkt->src_mac);
}

static __always_inline struct decision arp_request(struct packet *pkt, const struct settings *set, void *data,
						   void *data_end)
{
	struct addr_entry *holder = find_address(0, &pkt->dst);
	__u8 mac[6], with[6];

	if (same_address(&pkt->src, &pkt->dst))
		return flood_control(0); /* an announcement of its own, after a failover or migration */
	if (holder && holder->vm == pkt->vm)
		return absorb(); /* a probe for its own */
	if (holder) {
		__builtin_memcpy(mac, holder->mac, 6);
		if (answers_for(pkt, mac, with))
			return answer_arp(pkt, set, data, data_end, mac, with);
		return ask_holder(pkt, set, data, data_end, mac);
	}
	if (!is_group_mac(pkt->dst_mac))
		return deliver_control(pkt, set); /* asks again one it knows */
	return flood_control(MARK_CONTROL_ROUTER);
}

static __always_inline struct decision control_arp(struct packet *pkt, const struct settings *set, void *data,
						   void *data_end)
{
	struct arp_packet *arp = at(data, data_end, pkt->l3, sizeof(*arp));
	bool request;

	if (!arp)
		return drop(REASON_DROP_MALFORMED);
	if (!well_formed_arp(pkt, arp))
		return drop(REASON_DROP_CONTROL);
	set_ipv4(&pkt->src, arp->sender);
	set_ipv4(&pkt->dst, arp->target);
	request = arp->op == bpf_htons(ARP_REQUEST);
	if (is_unspecified(&pkt->src)) {
		if (!request)
			return drop(REASON_DROP_CONTROL);
	} else if (!may_use(pkt, &pkt->src)) {
		return drop(REASON_DROP_SPOOF);
	}
	if (request)
		return arp_request(pkt, set, data, data_end);
	if (is_group_mac(pkt->dst_mac))
		return flood_control(0);
	return deliver_control(pkt, set);
}

#endif
