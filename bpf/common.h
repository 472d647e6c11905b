/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * What every header builds on: kernel headers, the port's identity, small
 * helpers on addresses. Nothing here touches a map or counts a packet.
 */
#ifndef VMGATE_COMMON_H
#define VMGATE_COMMON_H

#include <stdbool.h>
#include <stddef.h>
#include <linux/bpf.h>
#include <linux/if_ether.h>
#include <linux/in.h>
#include <linux/ip.h>
#include <linux/ipv6.h>
#include <linux/tcp.h>
#include <linux/udp.h>
#include <linux/pkt_cls.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_endian.h>

#include "maps.h"

/* Which port this copy of the programs stands on. Set before loading. */
volatile const struct port_config port = {};

/* No offset beyond this is read: the verifier wants a bound on packet offsets.
 * All ones, for the mask in at(). */
#define MAX_OFFSET 0x3fff

#define barrier() asm volatile("" ::: "memory")

/* Returns the size bytes at offset off of the frame, NULL if they are not all there. */
static __always_inline void *at(void *data, void *data_end, __u64 off, __u32 size)
{
	void *p;

	if (off > MAX_OFFSET)
		return NULL;
	/* The mask changes nothing. The compiler may keep off on the stack, though,
	 * and the verifier of Linux 6.1 forgets what was learned of it there; so
	 * the bound is said again, hidden from the optimiser, next to the use. */
	asm volatile("" : "+r"(off));
	p = data + (off & MAX_OFFSET);
	if (p + size > data_end)
		return NULL;
	return p;
}

static __always_inline bool same_mac(const __u8 *a, const __u8 *b)
{
	const __u16 *x = (const __u16 *)a, *y = (const __u16 *)b;

	return !((x[0] ^ y[0]) | (x[1] ^ y[1]) | (x[2] ^ y[2]));
}

/* Some total order of MACs, the same on every machine. */
static __always_inline bool mac_less(const __u8 *a, const __u8 *b)
{
	const __u16 *x = (const __u16 *)a, *y = (const __u16 *)b;
	__u64 m = (__u64)x[0] << 32 | (__u64)x[1] << 16 | x[2];
	__u64 n = (__u64)y[0] << 32 | (__u64)y[1] << 16 | y[2];

	return m < n;
}

static __always_inline bool is_group_mac(const __u8 *mac)
{
	return mac[0] & 1;
}

static __always_inline bool same_address(const union address *a, const union address *b)
{
	return !((a->d[0] ^ b->d[0]) | (a->d[1] ^ b->d[1]));
}

/* Stores an IPv4 address as ::ffff:a.b.c.d. */
static __always_inline void set_ipv4(union address *to, __be32 addr)
{
	to->w[0] = 0;
	to->w[1] = 0;
	to->w[2] = bpf_htonl(0xffff);
	to->w[3] = addr;
}

static __always_inline bool is_ipv4(const union address *a)
{
	return !a->d[0] && a->w[2] == bpf_htonl(0xffff);
}

static __always_inline bool is_unspecified(const union address *a)
{
	return !a->d[0] && (a->d[1] == 0 || (a->w[2] == bpf_htonl(0xffff) && !a->w[3]));
}

static __always_inline bool is_link_local(const union address *a)
{
	return a->b[0] == 0xfe && (a->b[1] & 0xc0) == 0x80;
}

/* Multicast, and IPv4's limited broadcast. */
static __always_inline bool is_group_address(const union address *a)
{
	if (is_ipv4(a))
		return a->b[12] >= 224;
	return a->b[0] == 0xff;
}

/*
 * The clock of all idle times: a few milliseconds coarse and several times
 * cheaper than bpf_ktime_get_ns. It may be that much behind what the daemon
 * reads, so differences are taken with elapsed().
 */
static __always_inline __u64 clock_now(void)
{
	return bpf_ktime_get_coarse_ns();
}

/* Nanoseconds from then to now, 0 if then is in the future. */
static __always_inline __u64 elapsed(__u64 now, __u64 then)
{
	return now > then ? now - then : 0;
}

#endif
