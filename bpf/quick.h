/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * The common case, alone: an untagged, whole TCP or UDP packet without options
 * of a live flow that is forwarded or dropped. It decides exactly as classify.h
 * does, by the same tests of the same fields, but keeps what it reads in
 * registers; whatever is not so plain it leaves untouched and uncounted to
 * classify.h, which begins anew. When in doubt it may always do that.
 */
#ifndef VMGATE_QUICK_H
#define VMGATE_QUICK_H

#include "common.h"
#include "events.h"
#include "flow.h"
#include "parse_ip.h"
#include "parse_l4.h"
#include "stats.h"

#define NOT_QUICK (-1)

struct quick {
	struct flow_key key;
	__u32 from;      /* index into key.addr of the sender */
	__u32 len;       /* of the frame */
	__u8 tcp_flags;
};

/* Any SYN is left out: it may begin another connection. */
static __always_inline bool quick_tcp(struct quick *q, void *header, void *data_end, __u32 len)
{
	struct tcphdr *tcp = header;

	if ((void *)(tcp + 1) > data_end || len < sizeof(*tcp) || tcp->doff < 5 || tcp->doff * 4u > len)
		return false;
	q->tcp_flags = ((__u8 *)tcp)[13];
	return !(q->tcp_flags & TCP_SYN);
}

static __always_inline bool is_dhcp_port(__be16 port_be)
{
	return port_be == bpf_htons(DHCP4_SERVER) || port_be == bpf_htons(DHCP4_CLIENT) ||
	       port_be == bpf_htons(DHCP6_SERVER) || port_be == bpf_htons(DHCP6_CLIENT);
}

static __always_inline bool quick_udp(void *header, void *data_end, __u32 len)
{
	struct udphdr *udp = header;
	__u32 datagram;

	if ((void *)(udp + 1) > data_end)
		return false;
	datagram = bpf_ntohs(udp->len);
	return datagram >= sizeof(*udp) && datagram <= len && !is_dhcp_port(udp->source);
}

/* Checks the header behind an IP header, of len bytes with its payload. */
static __always_inline bool quick_l4(struct quick *q, void *header, void *data_end, __u32 len, __u8 proto)
{
	q->key.proto = proto;
	if (proto == IPPROTO_TCP)
		return quick_tcp(q, header, data_end, len);
	if (proto == IPPROTO_UDP)
		return quick_udp(header, data_end, len);
	return false;
}

/* Ports stand first in both headers, source before destination. */
static __always_inline void quick_ports(struct quick *q, const void *header)
{
	const __be16 *ports = header;

	q->key.port[0] = q->from ? ports[1] : ports[0];
	q->key.port[1] = q->from ? ports[0] : ports[1];
}

static __always_inline bool quick_ipv4(struct quick *q, void *l3, void *data_end)
{
	struct iphdr *ip = l3;
	__u32 src, dst, total;

	if ((void *)(ip + 1) > data_end || *(__u8 *)ip != 0x45)
		return false;
	total = bpf_ntohs(ip->tot_len);
	src = ip->saddr;
	dst = ip->daddr;
	if (total < sizeof(*ip) || sizeof(struct ethhdr) + total > q->len ||
	    (ip->frag_off & bpf_htons(IPV4_OFFSET_MASK | IPV4_MORE)))
		return false;
	if (bad_ipv4_host(src) || bad_ipv4_host(dst) || !dst || bpf_ntohl(src) >> 28 >= 0xe || src == dst)
		return false;
	if (!quick_l4(q, ip + 1, data_end, total - sizeof(*ip), ip->protocol))
		return false;
	q->from = bpf_ntohl(src) > bpf_ntohl(dst);
	set_ipv4((union address *)q->key.addr[0], q->from ? dst : src);
	set_ipv4((union address *)q->key.addr[1], q->from ? src : dst);
	quick_ports(q, ip + 1);
	return true;
}

static __always_inline bool quick_ipv6(struct quick *q, void *l3, void *data_end)
{
	const union address *src, *dst;
	struct ipv6hdr *ip = l3;
	__u32 payload;

	if ((void *)(ip + 1) > data_end || ip->version != 6)
		return false;
	payload = bpf_ntohs(ip->payload_len);
	src = (const union address *)&ip->saddr;
	dst = (const union address *)&ip->daddr;
	if (sizeof(struct ethhdr) + sizeof(*ip) + payload > q->len)
		return false;
	if (src->b[0] == 0xff || (!src->w[0] && !src->w[1]) || (!dst->w[0] && !dst->w[1]))
		return false;
	if (!quick_l4(q, ip + 1, data_end, payload, ip->nexthdr))
		return false;
	if (src->w[0] == dst->w[0] && src->w[1] == dst->w[1] && src->w[2] == dst->w[2] && src->w[3] == dst->w[3])
		return false;
	q->from = address_less(dst, src);
	__builtin_memcpy(q->key.addr[0], q->from ? dst : src, 16);
	__builtin_memcpy(q->key.addr[1], q->from ? src : dst, 16);
	quick_ports(q, ip + 1);
	return true;
}

/* Lives the flow by what was seen in this direction alone? classify.h looks at
 * the other one too. */
static __always_inline bool quick_lives(const struct flow *flow, const struct flow_dir *dir, const struct settings *set,
					const struct quick *q, __u64 now)
{
	__u64 idle = set->udp_idle;

	if (q->key.proto == IPPROTO_TCP)
		idle = set->tcp_transient < set->tcp_established ? set->tcp_transient : set->tcp_established;
	if (flow->expires && now >= flow->expires)
		return false;
	return elapsed(now, dir->last_seen) <= idle;
}

/* A bit for each verdict that stands on the flow. */
static __always_inline __u32 quick_verdicts(const struct flow *flow)
{
	__u32 rule_id = flow->rule, vm0 = flow->dir[0].vm, vm1 = flow->dir[1].vm;
	__u32 owner0 = flow->dir[0].owner, owner1 = flow->dir[1].owner;
	struct rule *rule = bpf_map_lookup_elem(&rules, &rule_id);
	struct vm *a = bpf_map_lookup_elem(&vms, &vm0), *b = bpf_map_lookup_elem(&vms, &vm1);
	struct owner *c = bpf_map_lookup_elem(&owners, &owner0), *d = bpf_map_lookup_elem(&owners, &owner1);

	if (!rule || !a || !b || !c || !d)
		return 0;
	return 1u << (flow->verdict & 31) | 1u << (rule->verdict & 31) | 1u << (a->verdict & 31) |
	       1u << (b->verdict & 31) | 1u << (c->verdict & 31) | 1u << (d->verdict & 31);
}

/* Would this drop be reported by an event? */
static __always_inline bool would_report(const struct settings *set, __u64 now)
{
	__u32 index = port.id * REASON_MAX + REASON_DROP_VERDICT;
	struct sample *sample;

	if (!set->event_sample)
		return false;
	sample = bpf_map_lookup_elem(&samples, &index);
	return !sample || now - sample->second * NSEC_PER_SEC >= NSEC_PER_SEC || sample->events < set->event_sample;
}

static __always_inline void quick_count(struct flow_dir *dir, enum reason reason, const struct quick *q, __u64 now)
{
	__u32 index = port.id * REASON_MAX + reason;
	struct counter *counter = bpf_map_lookup_elem(&stats, &index);

	dir->packets++;
	dir->bytes += q->len;
	dir->last_seen = now;
	if (q->tcp_flags & ~dir->tcp_flags)
		dir->tcp_flags |= q->tcp_flags;
	if (!counter)
		return;
	counter->packets++;
	counter->bytes += q->len;
}

/* Returns what to do with the frame, or NOT_QUICK. */
static __always_inline int quick(void *data, void *data_end, const struct settings *set)
{
	struct quick q = { .len = data_end - data };
	struct ethhdr *eth = data;
	struct flow_dir *dir;
	struct flow *flow;
	__u32 stands;
	__u64 now;

	/* A proxy's frames are written to (proxy.h). */
	if (port.proxy || (void *)(eth + 1) > data_end || set->mode > MODE_MONITOR)
		return NOT_QUICK;
	q.key.group = port.group;
	if (eth->h_proto == bpf_htons(ETH_P_IP)) {
		if (!quick_ipv4(&q, eth + 1, data_end))
			return NOT_QUICK;
	} else if (eth->h_proto == bpf_htons(ETH_P_IPV6)) {
		if (!quick_ipv6(&q, eth + 1, data_end))
			return NOT_QUICK;
	} else {
		return NOT_QUICK;
	}
	flow = bpf_map_lookup_elem(&flows, &q.key);
	if (!flow)
		return NOT_QUICK;
	asm volatile("" : "+r"(q.from)); /* else the compiler ors it into the pointer */
	dir = &flow->dir[q.from & 1];
	now = clock_now();
	if (!same_mac(dir->src_mac, eth->h_source) || !same_mac(dir->dst_mac, eth->h_dest) ||
	    is_group_mac(eth->h_source) || dir->in_port != port.id || !quick_lives(flow, dir, set, &q, now))
		return NOT_QUICK;
	stands = quick_verdicts(flow);
	if (stands == 1u << VERDICT_FORWARD) {
		int action = bpf_redirect_map(&tx_ports, dir->out_port, XDP_DROP);

		if (action != XDP_REDIRECT)
			return NOT_QUICK;
		quick_count(dir, REASON_FORWARD, &q, now);
		return action;
	}
	if (!(stands >> VERDICT_DROP) || set->mode != MODE_ENFORCE || would_report(set, now))
		return NOT_QUICK;
	quick_count(dir, REASON_DROP_VERDICT, &q, now);
	return XDP_DROP;
}

#endif
