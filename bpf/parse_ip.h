/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * IPv4 with options, IPv6 with its extension headers, fragments. Leaves the
 * addresses, the protocol and the offset of its header. Contract as in parse.h.
 */
#ifndef VMGATE_PARSE_IP_H
#define VMGATE_PARSE_IP_H

#include "common.h"

#define MAX_EXTENSIONS 8

#define IPV4_OFFSET_MASK 0x1fff
#define IPV4_MORE 0x2000
#define IPV4_OPTIONS_MAX 40
#define OPTION_END 0
#define OPTION_NOP 1
#define OPTION_LSRR 131
#define OPTION_SSRR 137

#define IPV6_MORE 1

struct extension {
	__u8 next;
	__u8 len;
	union {
		struct {
			__u8 type;
			__u8 segments_left;
		} routing;
		__be16 fragment; /* offset and the more bit */
	};
	__be32 id;
};

_Static_assert(sizeof(struct extension) == 8, "extension");

/* Source routes are beyond us: they name another destination than the header. */
static __always_inline int parse_ipv4_options(struct packet *pkt, void *data, void *data_end, __u32 end)
{
#pragma clang loop unroll(disable)
	for (int i = 0; i < IPV4_OPTIONS_MAX; i++) {
		__u32 off = pkt->cursor;
		__u8 *type, *len;

		if (off >= end)
			return 0;
		type = at(data, data_end, off, 1);
		if (!type)
			return REASON_DROP_MALFORMED;
		if (*type == OPTION_END)
			return 0;
		if (*type == OPTION_NOP) {
			pkt->cursor = off + 1;
			continue;
		}
		if (*type == OPTION_LSRR || *type == OPTION_SSRR)
			return REASON_DROP_UNPARSED;
		len = at(data, data_end, off + 1, 1);
		if (!len || *len < 2 || off + *len > end)
			return REASON_DROP_MALFORMED;
		pkt->cursor = off + *len;
	}
	return 0;
}

/* Notes the fragment; its payload begins at pkt->cursor. */
static __always_inline int note_fragment(struct packet *pkt, __u32 offset, bool more)
{
	__u32 len = pkt->end - pkt->cursor;

	if (!offset && !more)
		return 0; /* whole; IPv6 calls it atomic */
	if (pkt->end < pkt->cursor || !len || (more && len % 8) || offset + len > 0xffff)
		return REASON_DROP_MALFORMED;
	pkt->fragment = offset ? FRAGMENT_LATER : FRAGMENT_FIRST;
	pkt->fragment_offset = offset;
	pkt->fragment_len = len;
	return 0;
}

static __always_inline bool bad_ipv4_host(__be32 addr)
{
	__u32 first = bpf_ntohl(addr) >> 24;

	return first == 127 || (first == 0 && addr);
}

static __always_inline int parse_ipv4(struct packet *pkt, void *data, void *data_end)
{
	struct iphdr *ip = at(data, data_end, pkt->l3, sizeof(*ip));
	__u32 l3 = pkt->l3, header, total, frag;

	if (!ip || ip->version != 4 || ip->ihl < 5)
		return REASON_DROP_MALFORMED;
	header = ip->ihl * 4;
	total = bpf_ntohs(ip->tot_len);
	if (total < header || l3 + total > pkt->len)
		return REASON_DROP_MALFORMED;
	if (bad_ipv4_host(ip->saddr) || bad_ipv4_host(ip->daddr) || !ip->daddr ||
	    bpf_ntohl(ip->saddr) >> 28 >= 0xe)
		return REASON_DROP_MALFORMED;
	set_ipv4(&pkt->src, ip->saddr);
	set_ipv4(&pkt->dst, ip->daddr);
	pkt->end = l3 + total;
	pkt->proto = ip->protocol;
	pkt->fragment_proto = ip->protocol;
	pkt->fragment_id = ip->id;
	pkt->hop_limit = ip->ttl;
	frag = bpf_ntohs(ip->frag_off);
	pkt->cursor = l3 + sizeof(*ip);
	if (header > sizeof(*ip)) {
		int bad = parse_ipv4_options(pkt, data, data_end, l3 + header);

		if (bad)
			return bad;
	}
	pkt->cursor = l3 + header;
	return note_fragment(pkt, (frag & IPV4_OFFSET_MASK) * 8, frag & IPV4_MORE);
}

static __always_inline bool is_extension(__u8 next)
{
	return next == IPPROTO_HOPOPTS || next == IPPROTO_ROUTING || next == IPPROTO_FRAGMENT ||
	       next == IPPROTO_DSTOPTS || next == IPPROTO_AH;
}

/* Steps over one extension header. */
static __always_inline int parse_extension(struct packet *pkt, void *data, void *data_end)
{
	__u32 off = pkt->cursor, size;
	__u8 this = pkt->proto;
	struct extension *ext = at(data, data_end, off, sizeof(*ext));

	if (!ext || off + sizeof(*ext) > pkt->end)
		return REASON_DROP_MALFORMED;
	if (this == IPPROTO_ROUTING && ext->routing.segments_left)
		return REASON_DROP_UNPARSED; /* the header's destination is not the last */
	if (this == IPPROTO_FRAGMENT)
		size = sizeof(*ext);
	else if (this == IPPROTO_AH)
		size = (ext->len + 2) * 4;
	else
		size = (ext->len + 1) * 8;
	if (off + size > pkt->end)
		return REASON_DROP_MALFORMED;
	pkt->cursor = off + size;
	pkt->proto = ext->next;
	if (this == IPPROTO_FRAGMENT) {
		__u32 frag = bpf_ntohs(ext->fragment);

		if (pkt->fragment != FRAGMENT_NONE)
			return REASON_DROP_MALFORMED;
		pkt->fragment_id = ext->id;
		pkt->fragment_proto = ext->next;
		return note_fragment(pkt, frag & ~7u, frag & IPV6_MORE);
	}
	return 0;
}

static __always_inline int parse_extensions(struct packet *pkt, void *data, void *data_end)
{
#pragma clang loop unroll(disable)
	for (int i = 0; i < MAX_EXTENSIONS; i++) {
		int bad;

		if (!is_extension(pkt->proto) || pkt->fragment == FRAGMENT_LATER)
			return 0;
		if (i && pkt->proto == IPPROTO_HOPOPTS)
			return REASON_DROP_MALFORMED;
		bad = parse_extension(pkt, data, data_end);
		if (bad)
			return bad;
	}
	return is_extension(pkt->proto) ? REASON_DROP_UNPARSED : 0;
}

/* Loopback, IPv4-mapped and -compatible addresses have no place in an IPv6
 * header on a wire; the mapped ones would collide with the keys of IPv4. */
static __always_inline bool bad_ipv6_host(const union address *a)
{
	if (a->d[0])
		return false;
	return is_ipv4(a) || (!a->w[2] && a->w[3]);
}

static __always_inline int parse_ipv6(struct packet *pkt, void *data, void *data_end)
{
	struct ipv6hdr *ip = at(data, data_end, pkt->l3, sizeof(*ip));
	__u32 l3 = pkt->l3, total;

	if (!ip || ip->version != 6)
		return REASON_DROP_MALFORMED;
	total = sizeof(*ip) + bpf_ntohs(ip->payload_len);
	if (l3 + total > pkt->len)
		return REASON_DROP_MALFORMED;
	__builtin_memcpy(&pkt->src, &ip->saddr, 16);
	__builtin_memcpy(&pkt->dst, &ip->daddr, 16);
	if (pkt->src.b[0] == 0xff || bad_ipv6_host(&pkt->src) || bad_ipv6_host(&pkt->dst) ||
	    is_unspecified(&pkt->dst))
		return REASON_DROP_MALFORMED;
	pkt->end = l3 + total;
	pkt->proto = ip->nexthdr;
	pkt->hop_limit = ip->hop_limit;
	pkt->cursor = l3 + sizeof(*ip);
	if (is_extension(ip->nexthdr)) {
		int bad = parse_extensions(pkt, data, data_end);

		if (bad)
			return bad;
	}
	return pkt->proto == IPPROTO_NONE ? REASON_DROP_UNPARSED : 0;
}

#endif
