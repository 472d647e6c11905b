/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * The two TC hooks around the kernel's own forwarding. Ingress turns XDP's
 * word into the mark; egress passes what bears a mark of ours, and nothing
 * else, whatever the firewall's rules say.
 */
#ifndef VMGATE_EGRESS_H
#define VMGATE_EGRESS_H

#include "common.h"
#include "destination.h"
#include "parse.h"
#include "proxy.h"
#include "skb.h"
#include "stats.h"

/* Takes the mark out of the metadata, so that it cannot serve twice. Returns 0 and
 * the reason if XDP left none, or if it saw another tag than the kernel: a device
 * that stripped it would have the VLANs of a trunk taken for one. */
static __always_inline __u32 take_mark(struct __sk_buff *skb, enum reason *reason)
{
	__u32 tag = skb->vlan_present ? META_TAGGED | (skb->vlan_tci & 0xfff) : 0;
	void *data = (void *)(long)skb->data;
	struct meta *meta = (void *)(long)skb->data_meta;
	__u32 mark;

	*reason = REASON_DROP_INGRESS;
	if ((void *)(meta + 1) > data || meta->magic != META_MAGIC)
		return 0;
	mark = meta->tag == tag ? meta->mark : 0;
	if (!mark)
		*reason = REASON_DROP_STRIPPED;
	meta->magic = 0;
	meta->mark = 0;
	return mark;
}

static __always_inline bool has_router(void)
{
	__u32 id = port.id;
	struct port *here = bpf_map_lookup_elem(&ports, &id);

	return here && (here->flags & PORT_HAS_ROUTER);
}

/* Turns a released packet off to the engine of its slot, its Ethernet header as it
 * was. */
static __always_inline int egress_to_ids(struct __sk_buff *skb, const struct settings *set, bool from_initiator,
					 enum reason *reason)
{
	const struct ids_instance *ids = instance_of(set, skb->mark & MARK_SLOT);
	__u32 ids_port = from_initiator ? ids->in : ids->out;
	struct port *to;

	if (set->mode == MODE_MONITOR) {
		*reason = REASON_MONITOR;
		return TC_ACT_OK;
	}
	if (ids->state == IDS_DOWN_OPEN) {
		*reason = REASON_OPEN;
		return TC_ACT_OK;
	}
	*reason = REASON_DROP_IDS_DOWN;
	if (ids->state != IDS_UP || ids_port == PORT_NONE)
		return TC_ACT_SHOT;
	to = bpf_map_lookup_elem(&ports, &ids_port);
	if (!to || !to->ifindex)
		return TC_ACT_SHOT;
	*reason = REASON_EGRESS_CHECK;
	skb->mark = 0;
	return bpf_redirect(to->ifindex, 0);
}

/* Fills what a look-up by MAC needs. */
static __always_inline bool read_macs(struct __sk_buff *skb, struct packet *pkt)
{
	void *data = (void *)(long)skb->data, *data_end = (void *)(long)skb->data_end;

	return !parse_ethernet(pkt, data, data_end, stripped_tag(skb));
}

/* A VM may have been cut off while its packets were held. */
static __always_inline bool ends_stopped(struct packet *pkt, const struct settings *set)
{
	struct mac_entry *src = find_mac(pkt, pkt->src_mac);
	__u32 out_port;

	if (src) {
		__u32 id = src->vm;
		struct vm *vm = bpf_map_lookup_elem(&vms, &id);

		if (vm && stopped(pkt, set, vm))
			return true;
	}
	return !is_group_mac(pkt->dst_mac) &&
	       port_to_mac(pkt, set, pkt->dst_mac, &out_port) == REASON_DROP_VERDICT;
}

/* See proxy.h: between two VMs behind this port the source is the device's own, and
 * what one sends to all is not sent back. */
static __always_inline int leave_by_proxy(struct __sk_buff *skb, const struct packet *pkt, enum reason *reason)
{
	struct mac_entry *from = find_mac(pkt, pkt->src_mac);
	__u8 mac[6];

	if (!from || from->port != port.id)
		return TC_ACT_OK;
	if (is_group_mac(pkt->dst_mac)) {
		*reason = REASON_CONTROL_ABSORBED;
		return TC_ACT_SHOT;
	}
	own_mac(mac);
	if (!bpf_skb_store_bytes(skb, offsetof(struct ethhdr, h_source), mac, 6, 0))
		return TC_ACT_OK;
	*reason = REASON_DROP_EGRESS;
	return TC_ACT_SHOT;
}

static __always_inline int judge_egress(struct __sk_buff *skb, struct packet *pkt, const struct settings *set,
					enum reason *reason)
{
	__u32 mark = skb->mark;

	*reason = REASON_DROP_EGRESS;
	if (set->mode == MODE_CLOSE)
		return TC_ACT_SHOT;
	if (set->mode == MODE_OPEN) {
		*reason = REASON_OPEN;
		return TC_ACT_OK;
	}
	if (!(mark & MARK_CLASS) || !read_macs(skb, pkt))
		return TC_ACT_SHOT;
	barrier();
	if (ends_stopped(pkt, set)) {
		*reason = REASON_DROP_VERDICT;
		return TC_ACT_SHOT;
	}
	switch (mark & MARK_CLASS) {
	case MARK_FORWARD:
		*reason = REASON_EGRESS;
		return TC_ACT_OK;
	case MARK_CONTROL:
		if ((mark & MARK_CONTROL_ROUTER) && !has_router()) {
			*reason = REASON_CONTROL_ABSORBED;
			return TC_ACT_SHOT;
		}
		*reason = REASON_EGRESS;
		return TC_ACT_OK;
	case MARK_OPEN:
		*reason = REASON_OPEN;
		return TC_ACT_OK;
	case MARK_CHECK_IN:
		return egress_to_ids(skb, set, true, reason);
	case MARK_CHECK_OUT:
		return egress_to_ids(skb, set, false, reason);
	}
	return TC_ACT_SHOT;
}

#endif
