/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/* Builds the normalised flow key: one key for both directions of a flow. */
#ifndef VMGATE_KEY_H
#define VMGATE_KEY_H

#include "common.h"

static __always_inline bool address_less(const union address *a, const union address *b)
{
	if (a->d[0] != b->d[0])
		return bpf_be64_to_cpu(a->d[0]) < bpf_be64_to_cpu(b->d[0]);
	return bpf_be64_to_cpu(a->d[1]) < bpf_be64_to_cpu(b->d[1]);
}

/* Fills all of key but VLAN and group; src and dst differ. Returns the index
 * of src. */
static __always_inline __u32 order_key(struct flow_key *key, const union address *src,
				       const union address *dst, __be16 sport, __be16 dport, __u8 proto)
{
	key->proto = proto;
	if (address_less(dst, src)) {
		__builtin_memcpy(key->addr[0], dst, 16);
		__builtin_memcpy(key->addr[1], src, 16);
		key->port[0] = dport;
		key->port[1] = sport;
		return 1;
	}
	__builtin_memcpy(key->addr[0], src, 16);
	__builtin_memcpy(key->addr[1], dst, 16);
	key->port[0] = sport;
	key->port[1] = dport;
	return 0;
}

#endif
