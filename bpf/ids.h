/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * What came back from the IDS: delivered to where it was going, never to the
 * IDS again. Contract as in classify.h.
 */
#ifndef VMGATE_IDS_H
#define VMGATE_IDS_H

#include "classify.h"

static __always_inline bool known_and_free(struct packet *pkt, const struct settings *set, __u32 *reason)
{
	struct mac_entry *entry = find_mac(pkt, pkt->src_mac);
	struct vm *vm;
	__u32 id;

	*reason = REASON_DROP_UNKNOWN_SOURCE;
	if (!entry)
		return false;
	id = entry->vm;
	pkt->vm = id;
	vm = bpf_map_lookup_elem(&vms, &id);
	if (!vm)
		return false;
	*reason = REASON_DROP_VERDICT;
	return !stopped(pkt, set, vm);
}

/* Does a verdict that fell while the packet was in the IDS stop it? */
static __always_inline bool flow_stopped(struct packet *pkt, const struct settings *set)
{
	struct flow *flow = find_flow(&pkt->key, set, pkt->now);

	return flow && judge(pkt, flow) == VERDICT_DROP && set->mode != MODE_MONITOR;
}

/*
 * The daemon sends frames through the IDS to see whether it lives: of the local
 * experimental ethertype, and IP ones whose source MAC begins as no station's of the
 * inventory does. No guest's frame can be one: from a source or of an ethertype that
 * nobody knows, nothing gets from a vNIC to an IDS port. Whose start and which in the
 * row it is, the daemon checks.
 */
#define ETH_P_CANARY 0x88b5
#define CANARY_OUI 0x0a766d67u

static __always_inline bool is_canary(const struct packet *pkt)
{
	return pkt->ethertype == bpf_htons(ETH_P_CANARY) && pkt->l3 == sizeof(struct ethhdr);
}

static __always_inline bool is_ip_canary(const struct packet *pkt)
{
	__u32 oui = (__u32)pkt->src_mac[0] << 24 | (__u32)pkt->src_mac[1] << 16 |
		    (__u32)pkt->src_mac[2] << 8 | pkt->src_mac[3];

	return pkt->ethertype == bpf_htons(ETH_P_IP) && pkt->l3 == sizeof(struct ethhdr) && oui == CANARY_OUI &&
	       !find_mac(pkt, pkt->src_mac);
}

/* See proxy.h: between two VMs behind one port the source is the device's own. */
static __always_inline bool return_by_proxy(const struct packet *pkt, void *data, void *data_end, __u32 out_port)
{
	struct port *to = bpf_map_lookup_elem(&ports, &out_port);
	struct mac_entry *from = find_mac(pkt, pkt->src_mac);
	struct ethhdr *eth = data;

	if (!to || !(to->flags & PORT_PROXY) || !from || from->port != out_port)
		return true;
	if ((void *)(eth + 1) > data_end)
		return false;
	__builtin_memcpy(eth->h_source, to->mac, 6);
	return true;
}

static __always_inline struct decision classify_return(struct packet *pkt, const struct settings *set, void *data,
						       void *data_end)
{
	__u32 out_port = PORT_NONE, reason;
	int bad = parse_ethernet(pkt, data, data_end, 0);

	if (!bad && (is_canary(pkt) || is_ip_canary(pkt))) /* in every mode: it is no traffic */
		return send_up(0, REASON_CANARY);
	if (set->mode == MODE_CLOSE)
		return drop(REASON_DROP_VERDICT);
	if (bad)
		return drop(bad);
	barrier();
	if (is_group_mac(pkt->dst_mac))
		return drop(REASON_DROP_IDS_LOOP);
	if (!known_and_free(pkt, set, &reason))
		return drop(reason);
	if (is_ip(pkt)) {
		bad = parse_flow(pkt, data, data_end);
		if (bad)
			return drop(bad);
		if (flow_stopped(pkt, set))
			return drop(REASON_DROP_VERDICT);
		if (pkt->fragment == FRAGMENT_FIRST)
			remember_head(pkt);
	}
	bad = port_to_mac(pkt, set, pkt->dst_mac, &out_port);
	if (bad)
		return drop(bad);
	if (is_ids_port(set, out_port))
		return drop(REASON_DROP_IDS_LOOP);
	if (!return_by_proxy(pkt, data, data_end, out_port))
		return drop(REASON_DROP_MALFORMED);
	return deliver(out_port, REASON_IDS_RETURN);
}

#endif
