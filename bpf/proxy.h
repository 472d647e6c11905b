/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * For VMs behind one ordinary vSwitch whose ports are isolated from each other:
 * each knows the others by the MAC of the gateway's device alone, which answers
 * for them and stands in all that goes from one to the other. So the vSwitch
 * never sees a VM's MAC at a port that is not the VM's.
 *
 * All that decides sees the VMs' own MACs: the destination is put in when the
 * packet is read, and the source is replaced when it leaves by the port it came by.
 */
#ifndef VMGATE_PROXY_H
#define VMGATE_PROXY_H

#include "common.h"
#include "source.h"

/* The MAC in a link-local address that was made from one (RFC 4291, A). */
static __always_inline bool mac_of_link_local(const union address *a, __u8 *mac)
{
	if (!is_link_local(a) || a->b[11] != 0xff || a->b[12] != 0xfe)
		return false;
	mac[0] = a->b[8] ^ 2;
	mac[1] = a->b[9];
	mac[2] = a->b[10];
	mac[3] = a->b[13];
	mac[4] = a->b[14];
	mac[5] = a->b[15];
	return true;
}

/* The device's own MAC. Byte by byte: without volatile the compiler would take the
 * zeros that stand in the object. */
static __always_inline void own_mac(__u8 *mac)
{
	for (int i = 0; i < 6; i++)
		mac[i] = port.mac[i];
}

/* Is the frame for the gateway's device, which answers for others? */
static __always_inline bool to_proxy(const struct packet *pkt)
{
	__u8 mac[6];

	if (!port.proxy)
		return false;
	own_mac(mac);
	return same_mac(pkt->dst_mac, mac);
}

/* Puts the MAC of the one who has the packet's destination address into dst_mac. */
static __always_inline void find_receiver(struct packet *pkt)
{
	struct addr_entry *holder;
	__u8 mac[6];

	if (!to_proxy(pkt))
		return;
	holder = find_address(0, &pkt->dst);
	if (holder)
		__builtin_memcpy(pkt->dst_mac, holder->mac, 6);
	else if (mac_of_link_local(&pkt->dst, mac))
		__builtin_memcpy(pkt->dst_mac, mac, 6);
	else
		return;
	pkt->readdressed = 1;
}

/* Writes into the frame what find_receiver has found, and the device's own MAC
 * as the source if the frame goes back where it came from. */
static __always_inline bool rewrite_macs(const struct packet *pkt, void *data, void *data_end,
					 const struct decision *decision)
{
	struct ethhdr *eth = data;
	bool back = decision->action == ACTION_REDIRECT && decision->out_port == port.id;

	if (!port.proxy || decision->action == ACTION_DROP || pkt->answered || !(pkt->readdressed || back))
		return true;
	if ((void *)(eth + 1) > data_end)
		return false;
	__builtin_memcpy(eth->h_dest, pkt->dst_mac, 6);
	if (back)
		own_mac(eth->h_source);
	return true;
}

#endif
