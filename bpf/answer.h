/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * The gateway's own answers to "who has it?": the question is turned into the
 * answer in place and goes back where it came from.
 */
#ifndef VMGATE_ANSWER_H
#define VMGATE_ANSWER_H

#include "common.h"
#include "destination.h"
#include "proxy.h"

#define NA_ROUTER 0x80
#define NA_SOLICITED_OVERRIDE 0x60

struct arp_packet {
	__be16 hardware;
	__be16 protocol;
	__u8 hardware_len;
	__u8 protocol_len;
	__be16 op;
	__u8 sender_mac[6];
	__be32 sender;
	__u8 target_mac[6];
	__be32 target;
} __attribute__((packed));

_Static_assert(sizeof(struct arp_packet) == 28, "arp_packet");

/* A neighbour solicitation or advertisement, and its one usual option. */
struct neighbour_message {
	__u8 type;
	__u8 code;
	__sum16 checksum;
	__u8 flags;
	__u8 reserved[3];
	union address target;
};

struct mac_option {
	__u8 type;
	__u8 len; /* in units of 8 bytes */
	__u8 mac[6];
};

_Static_assert(sizeof(struct neighbour_message) == 24, "neighbour_message");
_Static_assert(sizeof(struct mac_option) == 8, "mac_option");

/*
 * With which MAC does the gateway answer for the station that has mac? Returns
 * false if it does not: the question is then for the station itself.
 */
static __always_inline bool answers_for(const struct packet *pkt, const __u8 *mac, __u8 *with)
{
	struct mac_entry *entry;

	if (!port.proxy && !port.answer)
		return false;
	entry = find_mac(pkt, mac);
	if (!entry)
		return false;
	if (port.proxy && entry->port == port.id) {
		own_mac(with);
		return true;
	}
	__builtin_memcpy(with, mac, 6);
	return port.answer;
}

/* Turns the frame round: it comes from mac. */
static __always_inline void turn_round(struct packet *pkt, struct ethhdr *eth, const __u8 *mac)
{
	__builtin_memcpy(eth->h_dest, pkt->src_mac, 6);
	__builtin_memcpy(eth->h_source, mac, 6);
	pkt->answered = 1;
}

/* An isolated station is not answered for. */
static __always_inline struct decision answered(struct packet *pkt, const struct settings *set, const __u8 *holder)
{
	__u32 holder_port;
	int bad = port_to_mac(pkt, set, holder, &holder_port);

	return bad ? drop(bad) : deliver(port.id, REASON_CONTROL_ANSWERED);
}

static __always_inline struct decision answer_arp(struct packet *pkt, const struct settings *set, void *data,
						  void *data_end, const __u8 *holder, const __u8 *with)
{
	struct arp_packet *arp = at(data, data_end, pkt->l3, sizeof(*arp));
	struct decision decision = answered(pkt, set, holder);
	struct ethhdr *eth = data;
	__be32 asked;

	if (decision.action == ACTION_DROP)
		return decision;
	if (!arp || (void *)(eth + 1) > data_end)
		return drop(REASON_DROP_MALFORMED);
	turn_round(pkt, eth, with);
	asked = arp->target;
	arp->op = bpf_htons(2);
	__builtin_memcpy(arp->target_mac, pkt->src_mac, 6);
	arp->target = arp->sender;
	__builtin_memcpy(arp->sender_mac, with, 6);
	arp->sender = asked;
	return decision;
}

static __always_inline __u8 advert_flags(const struct packet *pkt)
{
	__u32 id = pkt->dst_vm;
	struct vm *vm = bpf_map_lookup_elem(&vms, &id);

	/* Without it a host would take its router for none (RFC 4861, 7.3.3). */
	return NA_SOLICITED_OVERRIDE | (vm && (vm->flags & VM_ROUTER) ? NA_ROUTER : 0);
}

/* The ICMPv6 checksum of a message with checksum 0; option may be NULL. */
static __always_inline __sum16 neighbour_checksum(const struct ipv6hdr *ip, struct neighbour_message *msg,
						  struct mac_option *option)
{
	__u32 len = sizeof(*msg) + (option ? sizeof(*option) : 0);
	__be32 rest[2] = { bpf_htonl(len), bpf_htonl(IPPROTO_ICMPV6) };
	__u64 sum = bpf_csum_diff(NULL, 0, (__be32 *)&ip->saddr, 32, 0);

	sum = bpf_csum_diff(NULL, 0, rest, sizeof(rest), sum);
	sum = bpf_csum_diff(NULL, 0, (__be32 *)msg, sizeof(*msg), sum);
	if (option)
		sum = bpf_csum_diff(NULL, 0, (__be32 *)option, sizeof(*option), sum);
	sum = (sum & 0xffff) + (sum >> 16 & 0xffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return (__sum16)~sum;
}

/* Only the usual form is answered: IPv6 without extensions, with one option, as
 * who asks anybody sends it, or with none, as who asks whom he knows. Whoever asks
 * whether an address is free has none to be answered at: the holder defends it,
 * unless he is behind the same proxy. */
static __always_inline struct decision answer_solicitation(struct packet *pkt, const struct settings *set, void *data,
							   void *data_end, const __u8 *holder, const __u8 *with)
{
	struct decision decision = answered(pkt, set, holder);
	struct ipv6hdr *ip = at(data, data_end, pkt->l3, sizeof(*ip));
	__u32 len = pkt->end - pkt->l4;
	struct mac_option *option = NULL;
	struct neighbour_message *msg;
	struct ethhdr *eth = data;

	if (decision.action == ACTION_DROP)
		return decision;
	if (is_unspecified(&pkt->src))
		return port.proxy ? absorb() : ask_holder(pkt, set, data, data_end, holder);
	msg = at(data, data_end, pkt->l3 + sizeof(*ip), sizeof(*msg));
	if (!ip || !msg || (void *)(eth + 1) > data_end || pkt->l4 != pkt->l3 + sizeof(*ip))
		return drop(REASON_DROP_UNPARSED);
	if (len == sizeof(*msg) + sizeof(*option))
		option = at(data, data_end, pkt->l3 + sizeof(*ip) + sizeof(*msg), sizeof(*option));
	if (!option && len != sizeof(*msg))
		return drop(REASON_DROP_UNPARSED);
	if (option) {
		option->type = 2; /* the target's MAC */
		option->len = 1;
		__builtin_memcpy(option->mac, with, 6);
	}
	turn_round(pkt, eth, with);
	__builtin_memcpy(&ip->daddr, &pkt->src, 16);
	__builtin_memcpy(&ip->saddr, &msg->target, 16);
	ip->hop_limit = 255;
	msg->type = 136;
	msg->checksum = 0;
	msg->flags = advert_flags(pkt);
	msg->checksum = neighbour_checksum(ip, msg, option);
	return decision;
}

#endif
