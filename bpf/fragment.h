/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * Fragments: the ports of a datagram are remembered from its head, as long as
 * a head that was not dropped is FRAGMENT_LIFETIME young. Its pieces must come in
 * order, as hosts send them: one that begins before the end of an earlier one
 * overlaps it, and which of the two the receiver believes is not ours to know
 * (RFC 5722).
 */
#ifndef VMGATE_FRAGMENT_H
#define VMGATE_FRAGMENT_H

#include "common.h"

#define FRAGMENT_LIFETIME 5000000000ull

static __always_inline void fragment_key(const struct packet *pkt, struct fragment_key *key)
{
	__builtin_memset(key, 0, sizeof(*key));
	key->src = pkt->src;
	key->dst = pkt->dst;
	key->id = pkt->fragment_id;
	key->vlan = pkt->key.vlan;
	key->proto = pkt->fragment_proto;
	key->group = pkt->key.group;
}

static __always_inline void remember_head(const struct packet *pkt)
{
	struct fragment head = {
		.time = pkt->now,
		.sport = pkt->sport,
		.dport = pkt->dport,
		.end = pkt->fragment_len,
		.proto = pkt->proto,
	};
	struct fragment_key key;

	fragment_key(pkt, &key);
	bpf_map_update_elem(&fragments, &key, &head, BPF_ANY);
}

/* Gives a fragment the ports of its head. Only flows may be fragmented:
 * discovery in fragments is forbidden (RFC 6980), and the other control
 * packets are small. */
static __always_inline int join_fragment(struct packet *pkt)
{
	struct fragment_key key;
	struct fragment *head;

	if (pkt->kind != KIND_FLOW)
		return REASON_DROP_FRAGMENT;
	if (pkt->fragment == FRAGMENT_FIRST)
		return 0;
	fragment_key(pkt, &key);
	head = bpf_map_lookup_elem(&fragments, &key);
	if (!head || elapsed(pkt->now, head->time) > FRAGMENT_LIFETIME)
		return REASON_DROP_FRAGMENT;
	if (port.kind == PORT_VNIC) { /* back from the IDS it has been here before */
		if (pkt->fragment_offset < head->end)
			return REASON_DROP_FRAGMENT;
		head->end = pkt->fragment_offset + pkt->fragment_len;
	}
	pkt->sport = head->sport;
	pkt->dport = head->dport;
	pkt->proto = head->proto;
	return 0;
}

#endif
