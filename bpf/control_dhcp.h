/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * DHCP for IPv4 and IPv6: clients reach the ports that have a server, servers
 * are only whom the inventory calls so.
 */
#ifndef VMGATE_CONTROL_DHCP_H
#define VMGATE_CONTROL_DHCP_H

#include "common.h"
#include "destination.h"

#define BOOTP_REQUEST 1
#define BOOTP_REPLY 2

struct bootp {
	__u8 op;
	__u8 hardware;
	__u8 hardware_len;
	__u8 hops;
	__be32 xid;
	__be16 secs;
	__be16 flags;
	__be32 client, your, server, gateway;
	__u8 mac[16];
};

_Static_assert(sizeof(struct bootp) == 44, "bootp");

/* A client asks for itself, not for another's MAC. */
static __always_inline bool honest_client(const struct packet *pkt, void *data, void *data_end)
{
	struct bootp *msg;

	if (pkt->ethertype != bpf_htons(ETH_P_IP))
		return true;
	msg = at(data, data_end, pkt->l4 + sizeof(struct udphdr), sizeof(*msg));
	return msg && msg->op == BOOTP_REQUEST && msg->hardware == 1 && msg->hardware_len == 6 &&
	       same_mac(msg->mac, pkt->src_mac);
}

static __always_inline bool is_server_mac(const struct packet *pkt, const __u8 *mac)
{
	struct mac_entry *entry = find_mac(pkt, mac);
	struct vm *vm;
	__u32 id;

	if (!entry)
		return false;
	id = entry->vm;
	vm = bpf_map_lookup_elem(&vms, &id);
	return vm && (vm->flags & VM_DHCP_SERVER);
}

/* Is it a unicast between two ports of DHCP that a server has no part in? Then
 * it is a flow like any other and no way round the policy. */
static __always_inline bool is_disguised(const struct packet *pkt)
{
	if (pkt->kind != KIND_DHCP_CLIENT || is_group_mac(pkt->dst_mac))
		return false;
	return !is_server_mac(pkt, pkt->dst_mac);
}

/* May it be the lease of an IPv4 address, so that the daemon must see it? */
static __always_inline bool may_lease(const struct packet *pkt)
{
	return pkt->ethertype == bpf_htons(ETH_P_IP) && !pkt->fragment;
}

static __always_inline struct decision control_dhcp(struct packet *pkt, const struct settings *set, void *data,
						    void *data_end)
{
	bool group = is_group_mac(pkt->dst_mac);

	if (pkt->kind == KIND_DHCP_SERVER) {
		if (!(pkt->vm_flags & VM_DHCP_SERVER))
			return drop(REASON_DROP_CONTROL);
		return group ? flood_control(0) : deliver_control(pkt, set);
	}
	if (!honest_client(pkt, data, data_end))
		return drop(REASON_DROP_CONTROL);
	return group ? flood_control(MARK_CONTROL_ROUTER) : deliver_control(pkt, set);
}

#endif
