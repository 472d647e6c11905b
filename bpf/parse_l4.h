/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * TCP, UDP, UDP-Lite, SCTP, ICMP and ICMPv6 headers: ports, flags and what kind of
 * packet it is. Contract as in parse.h. Later fragments have no header here;
 * fragment.h finds their ports.
 */
#ifndef VMGATE_PARSE_L4_H
#define VMGATE_PARSE_L4_H

#include "common.h"

#define TCP_FIN 0x01
#define TCP_SYN 0x02
#define TCP_RST 0x04
#define TCP_ACK 0x10

#define DHCP4_SERVER 67
#define DHCP4_CLIENT 68
#define DHCP6_CLIENT 546
#define DHCP6_SERVER 547

/* <linux/icmp.h> needs a C library, so the few names are here. */
struct icmp_header {
	__u8 type;
	__u8 code;
	__be16 checksum;
	__be16 id; /* of an echo */
	__be16 sequence;
};

#define ICMP4_ECHO_REPLY 0
#define ICMP4_DEST_UNREACH 3
#define ICMP4_SOURCE_QUENCH 4
#define ICMP4_REDIRECT 5
#define ICMP4_ECHO_REQUEST 8
#define ICMP4_TIME_EXCEEDED 11
#define ICMP4_PARAM_PROB 12

#define ICMP6_DEST_UNREACH 1
#define ICMP6_PARAM_PROB 4
#define ICMP6_ECHO_REQUEST 128
#define ICMP6_ECHO_REPLY 129
#define ICMP6_MLD_QUERY 130
#define ICMP6_MLD_DONE 132
#define ICMP6_ROUTER_SOLICIT 133
#define ICMP6_ROUTER_ADVERT 134
#define ICMP6_NEIGHBOUR_SOLICIT 135
#define ICMP6_NEIGHBOUR_ADVERT 136
#define ICMP6_REDIRECT 137
#define ICMP6_MLD2_REPORT 143

#ifndef IPPROTO_SCTP
#define IPPROTO_SCTP 132
#endif
#ifndef IPPROTO_UDPLITE
#define IPPROTO_UDPLITE 136
#endif

/* A header that its first fragment cuts off is an attack on parsers like this. */
static __always_inline int cut_off(const struct packet *pkt)
{
	return pkt->fragment ? REASON_DROP_FRAGMENT : REASON_DROP_MALFORMED;
}

static __always_inline int parse_tcp(struct packet *pkt, void *data, void *data_end, __u32 len)
{
	struct tcphdr *tcp = at(data, data_end, pkt->l4, sizeof(*tcp));
	__u8 flags;

	if (!tcp || len < sizeof(*tcp))
		return cut_off(pkt);
	if (tcp->doff < 5)
		return REASON_DROP_MALFORMED;
	if (tcp->doff * 4u > len)
		return cut_off(pkt);
	flags = ((__u8 *)tcp)[13];
	if ((flags & TCP_SYN) && (flags & (TCP_FIN | TCP_RST)))
		return REASON_DROP_MALFORMED;
	pkt->sport = tcp->source;
	pkt->dport = tcp->dest;
	pkt->seq = tcp->seq;
	pkt->tcp_flags = flags;
	return 0;
}

static __always_inline __u8 udp_kind(const struct packet *pkt)
{
	__u16 from = bpf_ntohs(pkt->sport), to = bpf_ntohs(pkt->dport);
	bool v4 = pkt->ethertype == bpf_htons(ETH_P_IP);

	if (v4 ? from == DHCP4_CLIENT && to == DHCP4_SERVER : from == DHCP6_CLIENT && to == DHCP6_SERVER)
		return KIND_DHCP_CLIENT;
	if (v4 ? from == DHCP4_SERVER && to == DHCP4_CLIENT : from == DHCP6_SERVER && to == DHCP6_CLIENT)
		return KIND_DHCP_SERVER;
	return KIND_FLOW;
}

static __always_inline int parse_udp(struct packet *pkt, void *data, void *data_end, __u32 len)
{
	struct udphdr *udp = at(data, data_end, pkt->l4, sizeof(*udp));
	__u32 datagram;

	if (!udp || len < sizeof(*udp))
		return cut_off(pkt);
	datagram = bpf_ntohs(udp->len);
	if (datagram < sizeof(*udp) || (!pkt->fragment && datagram > len))
		return REASON_DROP_MALFORMED;
	pkt->sport = udp->source;
	pkt->dport = udp->dest;
	pkt->kind = udp_kind(pkt);
	return 0;
}

/* Its length field is the checksum's coverage (RFC 3828): 0 for all, or at least
 * the header. */
static __always_inline int parse_udplite(struct packet *pkt, void *data, void *data_end, __u32 len)
{
	struct udphdr *udp = at(data, data_end, pkt->l4, sizeof(*udp));
	__u32 covered;

	if (!udp || len < sizeof(*udp))
		return cut_off(pkt);
	covered = bpf_ntohs(udp->len);
	if (covered && (covered < sizeof(*udp) || (!pkt->fragment && covered > len)))
		return REASON_DROP_MALFORMED;
	pkt->sport = udp->source;
	pkt->dport = udp->dest;
	return 0;
}

static __always_inline int parse_sctp(struct packet *pkt, void *data, void *data_end, __u32 len)
{
	__be16 *ports = at(data, data_end, pkt->l4, 12);

	if (!ports || len < 12)
		return cut_off(pkt);
	pkt->sport = ports[0];
	pkt->dport = ports[1];
	return 0;
}

static __always_inline __u8 icmp4_kind(__u8 type)
{
	switch (type) {
	case ICMP4_DEST_UNREACH:
	case ICMP4_SOURCE_QUENCH:
	case ICMP4_REDIRECT:
	case ICMP4_TIME_EXCEEDED:
	case ICMP4_PARAM_PROB:
		return KIND_ICMP_ERROR;
	}
	return KIND_FLOW;
}

static __always_inline __u8 icmp6_kind(__u8 type)
{
	if (type >= ICMP6_DEST_UNREACH && type <= ICMP6_PARAM_PROB)
		return KIND_ICMP_ERROR;
	if (type >= ICMP6_ROUTER_SOLICIT && type <= ICMP6_REDIRECT)
		return KIND_ND;
	if ((type >= ICMP6_MLD_QUERY && type <= ICMP6_MLD_DONE) || type == ICMP6_MLD2_REPORT)
		return KIND_MULTICAST;
	return KIND_FLOW;
}

static __always_inline bool is_echo(__u8 proto, __u8 type)
{
	if (proto == IPPROTO_ICMP)
		return type == ICMP4_ECHO_REQUEST || type == ICMP4_ECHO_REPLY;
	return type == ICMP6_ECHO_REQUEST || type == ICMP6_ECHO_REPLY;
}

static __always_inline int parse_icmp(struct packet *pkt, void *data, void *data_end, __u32 len)
{
	struct icmp_header *icmp = at(data, data_end, pkt->l4, sizeof(*icmp));
	__u8 proto = pkt->proto;

	if (!icmp || len < sizeof(*icmp))
		return cut_off(pkt);
	if ((proto == IPPROTO_ICMP) != (pkt->ethertype == bpf_htons(ETH_P_IP)))
		return REASON_DROP_MALFORMED;
	pkt->icmp_type = icmp->type;
	pkt->kind = proto == IPPROTO_ICMP ? icmp4_kind(icmp->type) : icmp6_kind(icmp->type);
	if (is_echo(proto, icmp->type))
		pkt->sport = pkt->dport = icmp->id;
	return 0;
}

static __always_inline int parse_l4(struct packet *pkt, void *data, void *data_end)
{
	__u32 len = pkt->end - pkt->cursor;

	pkt->kind = KIND_FLOW;
	pkt->l4 = pkt->cursor;
	if (pkt->fragment == FRAGMENT_LATER)
		return 0;
	switch (pkt->proto) {
	case IPPROTO_TCP:
		return parse_tcp(pkt, data, data_end, len);
	case IPPROTO_UDP:
		return parse_udp(pkt, data, data_end, len);
	case IPPROTO_UDPLITE:
		return parse_udplite(pkt, data, data_end, len);
	case IPPROTO_SCTP:
		return parse_sctp(pkt, data, data_end, len);
	case IPPROTO_ICMP:
	case IPPROTO_ICMPV6:
		return parse_icmp(pkt, data, data_end, len);
	case IPPROTO_IGMP:
		pkt->kind = KIND_MULTICAST;
	}
	return 0;
}

#endif
