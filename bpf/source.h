/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * Who sent it, and may it bear this address? Functions return 0 or the reason
 * to drop the frame for.
 */
#ifndef VMGATE_SOURCE_H
#define VMGATE_SOURCE_H

#include "common.h"
#include "events.h"

#define MAX_LEARNED 16 /* addresses of each family that a VM may claim */
#define ADDR_BITS(n) (32 + (n))

static __always_inline struct mac_entry *find_mac(const struct packet *pkt, const __u8 *mac)
{
	struct mac_key key = { .vlan = pkt->key.vlan, .group = pkt->key.group };

	__builtin_memcpy(key.mac, mac, 6);
	return bpf_map_lookup_elem(&vm_macs, &key);
}

/* vm 0 asks whose the address is. */
static __always_inline struct addr_entry *find_address(__u32 vm, const union address *addr)
{
	struct addr_key key = { .prefixlen = ADDR_BITS(128), .vm = bpf_htonl(vm) };

	__builtin_memcpy(key.addr, addr, 16);
	return bpf_map_lookup_elem(&vm_addrs, &key);
}

/* The first to claim an address keeps it. The claim on the inventory's entry
 * comes first: it is what two claimants race for. */
static __always_inline bool learn_address(struct packet *pkt, const union address *addr)
{
	struct addr_key key = { .prefixlen = ADDR_BITS(128) };
	struct addr_entry entry = { .vm = pkt->vm, .port = port.id, .bits = 128 };
	__u32 vm = pkt->vm, *learnt;
	struct learned *learned_by;

	learned_by = bpf_map_lookup_elem(&learned, &vm);
	if (!learned_by)
		return false;
	learnt = is_ipv4(addr) ? &learned_by->ipv4 : &learned_by->ipv6;
	if (*learnt >= MAX_LEARNED)
		return false;
	__builtin_memcpy(key.addr, addr, 16);
	__builtin_memcpy(entry.mac, pkt->src_mac, 6);
	if (bpf_map_update_elem(&vm_addrs, &key, &entry, BPF_NOEXIST))
		return false;
	key.vm = bpf_htonl(vm);
	if (bpf_map_update_elem(&vm_addrs, &key, &entry, BPF_ANY))
		return false;
	__sync_fetch_and_add(learnt, 1);
	__builtin_memcpy(pkt->key.addr[pkt->from & 1], addr, 16); /* for the event */
	emit(pkt, EVENT_NEW_ADDRESS, REASON_CONTROL);
	return true;
}

/* May the sending VM speak as addr? Where prefixes overlap, the address is that
 * of whom the longest one names: a prefix does not cover a neighbour's own. */
static __noinline bool may_use(struct packet *pkt, const union address *addr)
{
	struct addr_entry *own = find_address(pkt->vm, addr), *holder = find_address(0, addr);

	if (holder && holder->vm != pkt->vm)
		return own && own->bits >= holder->bits;
	if (own || holder)
		return true;
	if (is_link_local(addr) || (pkt->vm_flags & VM_ROUTER))
		return true;
	return (pkt->vm_flags & VM_LEARN) && learn_address(pkt, addr);
}

/* A verdict DROP on the VM stops all its frames, whatever they are; monitor
 * mode only notes it. CHECK is noted for those who deliver. */
static __always_inline bool stopped(struct packet *pkt, const struct settings *set, const struct vm *vm)
{
	if (vm->verdict == VERDICT_CHECK)
		pkt->inspected = 1;
	if (vm->verdict < VERDICT_DROP)
		return false;
	pkt->cause = vm->cause;
	if (set->mode == MODE_MONITOR) {
		pkt->monitored = 1;
		return false;
	}
	return true;
}

/* Names the sender by its MAC address. */
static __noinline int check_sender(struct packet *pkt, const struct settings *set)
{
	struct mac_entry *entry = find_mac(pkt, pkt->src_mac);
	struct vm *vm;
	__u32 id;

	if (!entry)
		return REASON_DROP_UNKNOWN_SOURCE;
	id = entry->vm;
	pkt->vm = id;
	if (entry->segment != port.segment || entry->port != port.id)
		return REASON_DROP_SPOOF;
	vm = bpf_map_lookup_elem(&vms, &id);
	if (!vm)
		return REASON_DROP_UNKNOWN_SOURCE;
	pkt->vm_flags = vm->flags;
	return stopped(pkt, set, vm) ? REASON_DROP_VERDICT : 0;
}

/* Checks the source address of an IP packet. The unspecified address is for
 * those who have none yet: discovery, DHCP and group membership. */
static __always_inline int check_address(struct packet *pkt)
{
	if (is_unspecified(&pkt->src)) {
		if (pkt->kind == KIND_ND || pkt->kind == KIND_MULTICAST || pkt->kind == KIND_DHCP_CLIENT)
			return 0;
		return REASON_DROP_MALFORMED;
	}
	return may_use(pkt, &pkt->src) ? 0 : REASON_DROP_SPOOF;
}

#endif
