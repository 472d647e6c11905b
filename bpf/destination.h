/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * Where a unicast frame goes: by its destination MAC, never by flooding.
 */
#ifndef VMGATE_DESTINATION_H
#define VMGATE_DESTINATION_H

#include "common.h"
#include "share.h"
#include "source.h"

/* A port that the inventory does not name (PORT_NONE) is the gateway itself. */
static __noinline int port_to_mac(struct packet *pkt, const struct settings *set, const __u8 *mac,
				       __u32 *out_port)
{
	struct mac_entry *entry = find_mac(pkt, mac);
	struct vm *vm;
	__u32 id;

	if (!entry)
		return REASON_DROP_UNKNOWN_DEST;
	id = entry->vm;
	*out_port = entry->port;
	pkt->dst_vm = id;
	vm = bpf_map_lookup_elem(&vms, &id);
	if (!vm)
		return REASON_DROP_UNKNOWN_DEST;
	return stopped(pkt, set, vm) ? REASON_DROP_VERDICT : 0;
}

/* May a frame leave by out_port? Between two that share a port the vSwitch has
 * delivered already, unless it is one that reflects. */
static __always_inline bool may_leave_by(__u32 out_port)
{
	__u32 id = port.id;
	struct port *here;

	if (out_port != id)
		return true;
	here = bpf_map_lookup_elem(&ports, &id);
	return here && (here->flags & PORT_REFLECT);
}

static __always_inline int check_destination(struct packet *pkt, const struct settings *set, __u32 *out_port)
{
	int bad = port_to_mac(pkt, set, pkt->dst_mac, out_port);

	if (bad)
		return bad;
	return may_leave_by(*out_port) ? 0 : REASON_DROP_UNKNOWN_DEST;
}

/* Sends a packet through the engine of its slot, by the port that is its side.
 * out_port is where it goes when the operator chose open for a dead IDS. */
static __always_inline struct decision to_ids(const struct settings *set, __u32 slot, bool from_initiator,
					      __u32 out_port)
{
	const struct ids_instance *ids = instance_of(set, slot);
	__u32 ids_port = from_initiator ? ids->in : ids->out;

	if (ids->state == IDS_DOWN_OPEN)
		return deliver(out_port, REASON_OPEN);
	if (ids->state != IDS_UP || ids_port == PORT_NONE)
		return drop(REASON_DROP_IDS_DOWN);
	return deliver(ids_port, REASON_CHECK);
}

/*
 * Delivers what has no flow, through the IDS if an end's VM is under inspection:
 * that is about all its frames. The side is then chosen by the order of the
 * MACs, so that the two directions take different ones.
 */
static __always_inline struct decision deliver_frame(const struct packet *pkt, const struct settings *set,
						     __u32 out_port, enum reason reason)
{
	if (pkt->monitored)
		return deliver(out_port, REASON_MONITOR);
	if (!pkt->inspected)
		return deliver(out_port, reason);
	if (set->mode == MODE_MONITOR)
		return deliver(out_port, REASON_MONITOR);
	return to_ids(set, slot_of_macs(pkt->src_mac, pkt->dst_mac), mac_less(pkt->src_mac, pkt->dst_mac), out_port);
}

/* Delivers policed control traffic to the frame's destination. */
static __always_inline struct decision deliver_control(struct packet *pkt, const struct settings *set)
{
	__u32 out_port = PORT_NONE;
	int bad = check_destination(pkt, set, &out_port);

	if (bad)
		return drop(bad);
	return deliver_frame(pkt, set, out_port, REASON_CONTROL);
}

static __always_inline struct decision absorb(void)
{
	return drop(REASON_CONTROL_ABSORBED);
}

/* Up to the kernel's bridge, which floods it; egress lets it out where allowed. */
static __always_inline struct decision flood_control(enum mark where)
{
	return send_up(MARK_CONTROL | where, REASON_CONTROL);
}

/*
 * A question "who has target?" goes to the one who has it and to nobody else:
 * only the Ethernet destination changes. Questions about strangers go where a
 * router is.
 */
static __always_inline struct decision ask_holder(struct packet *pkt, const struct settings *set, void *data,
						  void *data_end, const __u8 *mac)
{
	struct ethhdr *eth = data;
	__u32 out_port = PORT_NONE;
	int bad = port_to_mac(pkt, set, mac, &out_port);

	if (bad == REASON_DROP_UNKNOWN_DEST) /* held in another layer 2 group */
		return flood_control(MARK_CONTROL_ROUTER);
	if (bad)
		return drop(bad);
	if (!may_leave_by(out_port))
		return absorb();
	if ((void *)(eth + 1) > data_end)
		return drop(REASON_DROP_MALFORMED);
	__builtin_memcpy(eth->h_dest, mac, 6);
	__builtin_memcpy(pkt->dst_mac, mac, 6);
	return deliver_frame(pkt, set, out_port, REASON_CONTROL);
}

#endif
