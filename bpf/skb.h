/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * What an skb has that an XDP frame has not: a tag that was taken out of the
 * frame, bytes that are not in its linear part, several frames in one. And what
 * is done with it once decided.
 */
#ifndef VMGATE_SKB_H
#define VMGATE_SKB_H

#include "common.h"
#include "events.h"
#include "parse.h"
#include "parse_ip.h"
#include "stats.h"

/* All headers of what is common: two tags, IPv4 with options or IPv6, TCP with
 * options. */
#define COMMON_HEADERS 160

/* The outer tag, as parse_ethernet wants it. */
static __always_inline __u32 stripped_tag(const struct __sk_buff *skb)
{
	if (!skb->vlan_present)
		return 0;
	return (__u32)bpf_ntohs(skb->vlan_proto) << 16 | (skb->vlan_tci & 0xffff);
}

/* Does the parser want more of the frame than COMMON_HEADERS? Extension headers
 * and what ICMPv6 carries may be long. */
static __always_inline bool reads_far(struct __sk_buff *skb)
{
	void *data = (void *)(long)skb->data, *data_end = (void *)(long)skb->data_end;
	__u32 l3 = sizeof(struct ethhdr);
	struct vlan_header *tag;
	struct ipv6hdr *ip;
	__be16 *type = at(data, data_end, l3 - 2, 2);

	if (type && is_vlan(*type)) {
		l3 += sizeof(*tag);
		type = at(data, data_end, l3 - 2, 2);
	}
	if (type && is_vlan(*type)) {
		l3 += sizeof(*tag);
		type = at(data, data_end, l3 - 2, 2);
	}
	if (!type || *type != bpf_htons(ETH_P_IPV6))
		return false;
	ip = at(data, data_end, l3, sizeof(*ip));
	return ip && (is_extension(ip->nexthdr) || ip->nexthdr == IPPROTO_ICMPV6);
}

/* Makes readable what the parser may read; most skbs are so already. */
static __always_inline bool pull_headers(struct __sk_buff *skb)
{
	__u32 linear = skb->data_end - skb->data, want = skb->len;

	if (linear >= want)
		return true;
	if (want > COMMON_HEADERS)
		want = COMMON_HEADERS;
	if (linear < want && bpf_skb_pull_data(skb, want))
		return false;
	if (!reads_far(skb))
		return true;
	want = skb->len;
	if (want > MAX_OFFSET)
		want = MAX_OFFSET;
	return !bpf_skb_pull_data(skb, want);
}

/* The bytes that each frame of an unsegmented packet begins with. */
static __always_inline __u32 segment_header(void *data, void *data_end)
{
	__u32 off = sizeof(struct ethhdr);
	__be16 *type = at(data, data_end, off - 2, 2);
	__u8 proto, *doff;

	if (type && is_vlan(*type)) {
		off += sizeof(struct vlan_header);
		type = at(data, data_end, off - 2, 2);
	}
	if (!type)
		return off;
	if (*type == bpf_htons(ETH_P_IP)) {
		struct iphdr *ip = at(data, data_end, off, sizeof(*ip));

		if (!ip)
			return off;
		proto = ip->protocol;
		off += ip->ihl * 4;
	} else {
		struct ipv6hdr *ip = at(data, data_end, off, sizeof(*ip));

		if (!ip)
			return off;
		proto = ip->nexthdr;
		off += sizeof(*ip);
	}
	if (proto == IPPROTO_UDP)
		return off + sizeof(struct udphdr);
	doff = at(data, data_end, off + 12, 1);
	return doff ? off + (*doff >> 4) * 4 : off;
}

/* Fills what the counters count. A guest's skb does not say how many segments it
 * will be (gso_segs is 0). */
static __always_inline void measure(struct packet *pkt, const struct __sk_buff *skb, void *data, void *data_end,
				    __u32 stripped)
{
	__u32 header, tag = stripped ? sizeof(struct vlan_header) : 0;

	pkt->wire = skb->len + tag;
	if (!skb->gso_size)
		return;
	header = segment_header(data, data_end);
	if (skb->len > header + skb->gso_size)
		pkt->segments = (skb->len - header + skb->gso_size - 1) / skb->gso_size;
	pkt->wire += (pkt->segments - 1) * (header + tag);
}

/* Do the frames fit the device? Tags do not count. */
static __always_inline bool fits(struct __sk_buff *skb, const struct packet *pkt, __u32 ifindex)
{
	__s32 tags = pkt->l3 ? (__s32)sizeof(struct ethhdr) - pkt->l3 : 0;
	__u32 mtu = 0;

	return bpf_check_mtu(skb, ifindex, &mtu, tags, BPF_MTU_CHK_SEGS) <= 0; /* errors are not about size */
}

/* Sends an skb out of a port; its egress program knows the mark. */
static __always_inline int redirect_skb(struct __sk_buff *skb, const struct packet *pkt, __u32 out_port,
					enum reason *reason)
{
	struct port *to = bpf_map_lookup_elem(&ports, &out_port);

	if (!to || !to->ifindex) {
		*reason = REASON_DROP_UNKNOWN_DEST;
		return TC_ACT_SHOT;
	}
	if (!fits(skb, pkt, to->ifindex)) {
		*reason = REASON_DROP_TOO_BIG;
		return TC_ACT_SHOT;
	}
	skb->mark = MARK_REDIRECT;
	return bpf_redirect(to->ifindex, 0);
}

static __always_inline void report_lease_skb(struct __sk_buff *skb, const struct packet *pkt)
{
	struct dhcp_event *event;
	__u32 off, len;

	event = begin_dhcp(pkt, &off, &len);
	if (!event)
		return;
	end_dhcp(event, !bpf_skb_load_bytes(skb, off, event->message, len_of_head(len)));
}

/* Does what was decided; counts and reports it. See carry_out_xdp. */
static __always_inline int carry_out_skb(struct __sk_buff *skb, struct packet *pkt, const struct settings *set)
{
	enum reason reason;
	int action = TC_ACT_SHOT;

	barrier();
	reason = pkt->decision.reason;
	skb->mark = 0;
	if (pkt->leases)
		report_lease_skb(skb, pkt);
	if (pkt->decision.action == ACTION_REDIRECT) {
		action = redirect_skb(skb, pkt, pkt->decision.out_port, &reason);
	} else if (pkt->decision.action == ACTION_UP) {
		skb->mark = pkt->decision.mark;
		action = TC_ACT_OK;
	}
	count(reason, pkt);
	if (reason >= REASON_DROP_VERDICT)
		report_drop(pkt, reason, set->event_sample);
	return action;
}

#endif
