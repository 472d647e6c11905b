/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * The packet in hand as the parser leaves it, the decision on it, and the
 * values of the programs' own maps. Offsets count from the first byte of the
 * frame.
 */
#ifndef VMGATE_PACKET_H
#define VMGATE_PACKET_H

#include "types.h"

union address {
	__u8 b[16];
	__be32 w[4];
	__be64 d[2];
};

/* What sort of packet it is, and so who judges it. */
enum kind {
	KIND_OTHER = 0,   /* an ethertype that nobody judges */
	KIND_FLOW,
	KIND_ARP,
	KIND_ND,          /* neighbour and router discovery */
	KIND_MULTICAST,   /* IGMP, MLD */
	KIND_DHCP_CLIENT,
	KIND_DHCP_SERVER,
	KIND_ICMP_ERROR,
};

enum fragment_part {
	FRAGMENT_NONE = 0,
	FRAGMENT_FIRST,
	FRAGMENT_LATER,
};

/* What the classification wants done; a thin wrapper does it. */
enum action {
	ACTION_DROP = 0,
	ACTION_REDIRECT, /* out of out_port */
	ACTION_UP,       /* to the kernel, with mark */
};

struct decision {
	enum action action;
	enum reason reason;
	__u32 out_port;
	enum mark mark;
};

struct packet {
	struct flow_key key;
	__u32 from;             /* index into key.addr of the sender */
	union address src;
	union address dst;
	__u64 now;
	__u32 len;              /* of the frame; a tag that the device has stripped is not in it */
	__u32 wire;             /* bytes on the wire, tags included, for the counters */
	__u32 segments;         /* frames on the wire: many, where segmentation is left to a device */
	__u32 seq;              /* TCP, network order */
	__u32 end;              /* just behind the IP packet */
	__u32 fragment_id;
	__u32 vm;               /* the sender, 0 until known */
	__u32 vm_flags;
	__u32 dst_vm;
	__u32 owner;            /* owner, rule and cause: for the event */
	__u32 rule;
	__u32 cause;
	__u8 src_mac[6];
	__u8 dst_mac[6];
	__be16 ethertype;
	__be16 sport;
	__be16 dport;
	__u16 l3;
	volatile __u16 cursor;  /* where the parser stands */
	__u16 l4;
	__u16 fragment_offset;  /* bytes */
	__u16 fragment_len;
	volatile __u8 proto;    /* while parsing: the next header */
	__u8 fragment_proto;    /* as the fragment's own header names it */
	__u8 hop_limit;
	__u8 icmp_type;
	__u8 tcp_flags;
	__u8 kind;              /* enum kind */
	__u8 fragment;          /* enum fragment_part */
	__u8 queueable;         /* bridge netfilter can hand it to the daemon */
	__u8 monitored;         /* would have been dropped but for monitor mode */
	__u8 inspected;         /* one end's VM is under VERDICT_CHECK */
	__u8 readdressed;       /* dst_mac is not what stands in the frame (yet) */
	__u8 answered;          /* the frame is the gateway's answer by now */
	__u8 leases;            /* a DHCP server's message that the daemon must see */
	struct decision decision;
	/* What follows is not emptied for each packet: who reads it has filled it. */
	struct flow_key quoted; /* of the packet that an ICMP error quotes */
	__u32 quoted_from;
	union address quoted_src;
	union address quoted_dst;
};

struct fragment_key {
	union address src;
	union address dst;
	__u32 id;               /* as in the header */
	__u32 vlan;
	__u8 proto;
	__u8 group;
	__u16 pad[3];
};

struct fragment {
	__u64 time;
	__be16 sport;
	__be16 dport;
	__u32 end;              /* of what has come: the next piece begins here or later */
	__u8 proto;             /* of the datagram, behind all extension headers */
	__u8 pad[7];
};

#define SUB_BUDGETS 16
#define BUDGETS (SUB_BUDGETS + 1) /* the last one is for what needs no decision */

/* A token bucket as one number, so that one compare-and-swap takes a token:
 * the time at which the bucket will be full again. */
struct budget {
	__u64 full_at;
};

struct learned {
	__u32 ipv4;
	__u32 ipv6;
};

struct sample {
	__u64 second;
	__u32 events;
	__u32 pad;
};

_Static_assert(sizeof(struct fragment_key) == 48, "fragment_key");
_Static_assert(sizeof(struct fragment) == 24, "fragment");
_Static_assert(offsetof(struct packet, src) % 8 == 0, "addresses are compared as words");

static __always_inline struct decision drop(enum reason reason)
{
	return (struct decision){ .action = ACTION_DROP, .reason = reason };
}

static __always_inline struct decision deliver(__u32 out_port, enum reason reason)
{
	return (struct decision){ .action = ACTION_REDIRECT, .reason = reason, .out_port = out_port };
}

static __always_inline struct decision send_up(enum mark mark, enum reason reason)
{
	return (struct decision){ .action = ACTION_UP, .reason = reason, .mark = mark };
}

#endif
