/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * Which of several engines inspects what: flows are hashed to slots, and the daemon
 * says which engine a slot belongs to. pkg/loader computes the same hash for what it
 * releases (IDSSlot).
 */
#ifndef VMGATE_SHARE_H
#define VMGATE_SHARE_H

#include "common.h"

/* Same for both directions, since the key is. */
static __always_inline __u32 slot_of_flow(const struct flow_key *key)
{
	const __u32 *word = (const __u32 *)key;
	__u32 hash = 0;

	for (int i = 0; i < (int)(sizeof(*key) / sizeof(*word)); i++) {
		hash = (hash ^ word[i]) * 0x9e3779b1u;
		hash ^= hash >> 15;
	}
	return hash % IDS_SLOTS;
}

/* For frames without a flow: same for both directions, too. */
static __always_inline __u32 slot_of_macs(const __u8 *a, const __u8 *b)
{
	__u32 hash = 0;

	for (int i = 0; i < 6; i++)
		hash = (hash ^ (__u32)(a[i] ^ b[i])) * 0x9e3779b1u;
	return hash >> 26;
}

_Static_assert(IDS_SLOTS == 1 << (32 - 26), "slot_of_macs");

/* The engine that a slot belongs to. */
static __always_inline const struct ids_instance *instance_of(const struct settings *set, __u32 slot)
{
	__u32 i = set->ids_slot[slot % IDS_SLOTS];

	return &set->ids[i % MAX_IDS];
}

static __always_inline bool is_ids_port(const struct settings *set, __u32 id)
{
	for (int i = 0; i < MAX_IDS; i++) {
		if (id == set->ids[i].in || id == set->ids[i].out)
			return true;
	}
	return false;
}

#endif
