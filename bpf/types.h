/* SPDX-License-Identifier: GPL-2.0-only OR Apache-2.0 */
/*
 * Types that the kernel programs and the daemon share. Everything here is
 * wire format: fixed width, explicit padding, sizes asserted. MAC addresses
 * and the fields marked __be are in network byte order, the rest in host
 * order. Times are CLOCK_MONOTONIC nanoseconds unless said otherwise.
 */
#ifndef VMGATE_TYPES_H
#define VMGATE_TYPES_H

/* Ordered by strictness: where several apply, the greatest wins. UNDECIDED is
 * 0 so that an array slot nobody has written never lets a packet pass. */
enum verdict {
	VERDICT_UNDECIDED = 0,
	VERDICT_FORWARD = 1,
	VERDICT_CHECK = 2,
	VERDICT_DROP = 3,
};

/* Why a verdict stands: mirrored by verdict.Cause in Go. */
enum cause {
	CAUSE_NONE = 0,
	CAUSE_RULE = 1,          /* a policy rule, or the policy's default */
	CAUSE_MALICIOUS = 2,     /* on the malicious list */
	CAUSE_SUSPECT = 3,       /* on the suspect list */
	CAUSE_HIDDEN = 4,        /* the guest's own listing does not show it */
	CAUSE_ALERT = 5,         /* an IDS alert */
	CAUSE_REPORT = 6,        /* another tool's or gateway's report */
	CAUSE_OPERATOR = 7,      /* isolate, inspect, verdicts set */
	CAUSE_NO_OWNER = 8,      /* no process holds the port */
	CAUSE_INTROSPECTION = 9, /* declared, but could not be read in time */
	CAUSE_SPOOF = 10,
};

/* Where a counted packet went. Counters are keyed by it; the order is part of
 * the wire format (pkg/loader mirrors it as loader.Reason). */
enum reason {
	/* passed */
	REASON_FORWARD = 0,        /* established flow, redirected by XDP */
	REASON_CHECK,              /* redirected to the IDS */
	REASON_PUNT,               /* undecided: sent up to the daemon */
	REASON_CONTROL,            /* policed control traffic */
	REASON_CONTROL_ABSORBED,   /* control traffic nobody needs to see */
	REASON_IDS_RETURN,         /* came back clean from the IDS */
	REASON_OPEN,               /* forwarded because the operator chose open */
	REASON_MONITOR,            /* would have been dropped or checked */
	REASON_EGRESS,             /* sent by the kernel with the daemon's mark */
	REASON_EGRESS_CHECK,       /* sent by the kernel, turned off to the IDS */
	REASON_CANARY,             /* the daemon's own frame came out of the IDS */
	REASON_CONTROL_ANSWERED,   /* "who has it?", answered by the gateway itself */
	/* dropped */
	REASON_DROP_VERDICT = 16,  /* a VM, rule, owner or flow verdict says drop */
	REASON_DROP_MALFORMED,
	REASON_DROP_UNPARSED,      /* well-formed as far as read, but beyond the parser */
	REASON_DROP_ETHERTYPE,     /* unknown ethertype */
	REASON_DROP_FRAGMENT,      /* no head seen, tiny or overlapping */
	REASON_DROP_UNKNOWN_SOURCE,
	REASON_DROP_SPOOF,         /* another's MAC, address or segment */
	REASON_DROP_UNKNOWN_DEST,
	REASON_DROP_MULTICAST,
	REASON_DROP_CONTROL,       /* control traffic that lies */
	REASON_DROP_BUDGET,        /* the VM's budget of undecided flows is spent */
	REASON_DROP_HELD,          /* enough packets of this flow are held already */
	REASON_DROP_PENDING_FULL,
	REASON_DROP_DAEMON_DOWN,
	REASON_DROP_IDS_DOWN,
	REASON_DROP_IDS_LOOP,      /* would enter the IDS again */
	REASON_DROP_EGRESS,        /* the kernel sent what bears no mark */
	REASON_DROP_INGRESS,       /* reached the stack without XDP's word */
	REASON_DROP_UNDECIDABLE,   /* undecided and cannot be held; reported by an event */
	REASON_DROP_RELATED,       /* ICMP error that quotes no live flow */
	REASON_DROP_STRIPPED,      /* its tag was beside the frame, where XDP cannot see it */
	REASON_DROP_LLC,           /* an 802.3 frame: no ethertype */
	REASON_DROP_TOO_BIG,       /* larger than its way out takes (TCX; XDP's are lost in the device) */
	REASON_MAX = 48,
};

enum port_kind {
	PORT_VNIC = 0,
	PORT_IDS_IN = 1,  /* the IDS port that packets towards the server enter */
	PORT_IDS_OUT = 2,
};

/* Fixed at load time: each attachment is its own copy of the programs. */
struct port_config {
	__u32 id;       /* index into tx_ports and stats; 1..MAX_PORTS-1 */
	enum port_kind kind;
	__u32 segment;  /* segment number, 0 for IDS ports */
	__u32 group;    /* layer 2 group; flows of two groups never meet */
	__u8 mac[6];    /* the device's own; of a proxy */
	__u8 proxy;     /* 1: the VMs of this port reach each other by the device's MAC */
	__u8 answer;    /* 1: the gateway answers ARP and neighbour solicitations itself */
	__u8 multicast; /* 1: what goes to all or to a group of known stations is flooded */
	__u8 pad[3];
};

/* Port flags, mutable: the ports map. */
enum port_flag {
	PORT_HAS_ROUTER = 1 << 0, /* a router or DHCP server is behind it */
	PORT_REFLECT = 1 << 1,    /* frames may go out of the port they came by */
	PORT_PROXY = 1 << 3,      /* see port_config */
	PORT_STACK = 1 << 2,      /* takes no frame from XDP: the kernel's stack sends to it */
};

#define MAX_PORTS 80
#define PORT_NONE 0
#define MAX_VMS 4096
#define MAX_RULES 4096
#define MAX_OWNERS 65536
#define MAX_FLOWS 1048576
#define MAX_PENDING 65536
#define MAX_VERDICTS 262144

struct port {
	__u32 ifindex;
	enum port_flag flags;
	char name[16];
	__u8 mac[6];
	__u8 pad[2];
};

/* Who speaks with this MAC: the key of vm_macs. */
struct mac_key {
	__u32 vlan;     /* outer TCI VID << 16 | inner VID; an untagged frame has 0 */
	__u8 mac[6];
	__u16 group;
};

struct mac_entry {
	__u32 vm;
	__u32 segment;
	__u32 port; /* where its frames come from and go to */
};

enum vm_flag {
	VM_ROUTER = 1 << 0,      /* any source address but the inventory's own */
	VM_DHCP_SERVER = 1 << 1,
	VM_LEARN = 1 << 2,       /* addresses are learned: the first to claim one keeps it */
};

/* id 0 stands for "no VM" and is preset to VERDICT_FORWARD by the loader. */
struct vm {
	enum verdict verdict;
	enum cause cause;
	enum vm_flag flags;
	__u32 budget;           /* undecided flows a second for each of the sub-budgets */
	char name[32];
};

/* Addresses: LPM. vm == 0 answers "whose is it?" for the whole inventory. */
struct addr_key {
	__u32 prefixlen;        /* 32 bits of VM id + up to 128 of address */
	__be32 vm;              /* network byte order, for the prefix match */
	__u8 addr[16];          /* IPv4 as ::ffff:a.b.c.d */
};

struct addr_entry {
	__u32 vm;
	__u32 port;
	__u8 mac[6];            /* where ARP and ND for it are delivered */
	__u16 bits;             /* of the prefix, of 128: the longer one wins */
};

/* Two ends, sorted: addr[0]:port[0] is the smaller, bytewise by address then
 * port in network order. One entry serves both directions. For ICMP echo both
 * ports are the identifier; for other protocols without ports they are 0. */
struct flow_key {
	__u8 addr[2][16];
	__be16 port[2];
	__u32 vlan;             /* as in mac_key */
	__u8 proto;
	__u8 group;
	__u16 pad;
};

/* One direction: from addr[i] of the key to the other end. */
struct flow_dir {
	__u64 packets;          /* kept by XDP */
	__u64 bytes;
	__u64 last_seen;
	__u8 src_mac[6];
	__u8 dst_mac[6];
	__u16 in_port;          /* port ids */
	__u16 out_port;
	__u32 vm;               /* the sending end's VM, 0 for none */
	__u32 owner;            /* the sending end's owner id, 0 for none */
	__u32 tcp_flags;        /* TCP flags seen so far (kept by XDP) */
	__u32 pad;
};

struct flow {
	struct flow_dir dir[2];
	__u64 created;
	__u64 expires;          /* absolute; 0: by idle time alone */
	enum verdict verdict;   /* of this flow alone */
	enum cause cause;
	__u32 rule;
	__u32 syn_seq;          /* of the initiator's SYN, network order; 0 if midstream */
	__u32 initiator;        /* index into dir */
	__u32 cleared;          /* 1: found clean, so what says check is lifted, of this flow alone */
};

/* A flow that waits for the daemon's decision. XDP makes it, the daemon ends it. */
struct pending {
	__u64 first_seen;
	__u64 last_seen;
	__u32 punted;           /* packets sent up so far */
	__u32 vm[2];            /* sending VM, receiving VM of the first packet */
	__u16 in_port;
	__u16 out_port;
	__u8 src_mac[6];
	__u8 dst_mac[6];
	__u32 syn_seq;
	__u32 from;             /* index into key.addr of the first packet's sender */
	__u32 tcp_flags;        /* of the first packet */
	__u32 frame_len;
	__u32 pad;
};

/* Key of the verdicts map: a port of a VM. */
struct verdict_key {
	__u32 vm;
	__u16 port;             /* host order */
	__u8 proto;
	__u8 pad;
};

struct verdict_entry {
	enum verdict verdict;
	enum cause cause;
	__u32 owner;
	__u32 pad;
	__u64 observed;         /* when the evidence was */
	__u64 expires;          /* absolute; 0: never */
};

/* id 0 stands for "no owner known" and is preset to VERDICT_FORWARD. */
struct owner {
	enum verdict verdict;
	enum cause cause;
	__u32 vm;
	__u32 pid;
	__u64 start_time;       /* ns since the guest's boot */
	char comm[16];
};

/* id 0 is never used by a flow. */
struct rule {
	enum verdict verdict;
	enum cause cause;
	__u64 digest;           /* of the policy that it belongs to */
	char name[48];
};

enum ids_state {
	IDS_UP = 0,
	IDS_DOWN_CLOSED = 1,
	IDS_DOWN_OPEN = 2,
};

enum mode {
	MODE_ENFORCE = 0,
	MODE_MONITOR = 1,
	MODE_CLOSE = 2,         /* the operator's panic: nothing passes */
	MODE_OPEN = 3,          /* the operator's panic: everything passes */
};

/* One engine between two ports. */
struct ids_instance {
	__u32 in;               /* port ids; 0 for none */
	__u32 out;
	enum ids_state state;
	__u32 pad;
};

#define MAX_IDS 8
#define IDS_SLOTS 64

struct settings {
	enum mode mode;
	__u32 new_flows_open;   /* when the daemon is silent: 0 closed, 1 open */
	__u32 held_per_flow;    /* packets of an undecided flow that are held */
	__u32 event_sample;     /* at most this many events a second and reason; 0: none */
	__u64 heartbeat_timeout;
	__u64 pending_timeout;
	__u64 tcp_established;  /* idle times */
	__u64 tcp_transient;    /* handshake not complete, or FIN or RST seen */
	__u64 udp_idle;
	__u64 other_idle;
	struct ids_instance ids[MAX_IDS];
	__u8 ids_slot[IDS_SLOTS]; /* flows are hashed to a slot; index into ids */
};

/* Index into stats: port id * REASON_MAX + reason. */
struct counter {
	__u64 packets;
	__u64 bytes;
};

enum event_type {
	EVENT_DROP = 0,         /* sampled */
	EVENT_SPOOF = 1,
	EVENT_UNDECIDED = 2,    /* cannot be held: the daemon decides for the retry; pending exists */
	EVENT_NEW_ADDRESS = 3,
	EVENT_DHCP = 4,         /* a struct dhcp_event: what a declared server has answered */
};

struct event {
	__u64 time;
	enum event_type type;
	enum reason reason;
	enum cause cause;
	__u32 port;
	__u32 vm;
	__u32 owner;
	__u32 rule;
	__u32 from;             /* index into key.addr of the sender */
	struct flow_key key;    /* zero where the frame has none */
	__u8 src_mac[6];
	__u8 dst_mac[6];
	__be16 ethertype;
	__u16 frame_len;
};

/* What a declared server has said to a client, for the daemon to read. */
#define DHCP_HEAD 512
struct dhcp_event {
	struct event event;
	__u32 len;              /* bytes of message that were copied; what follows means nothing */
	__u32 pad;
	__u8 message[DHCP_HEAD];
};

/*
 * skb->mark between the ingress and egress hooks of one packet. No guest can
 * set it; TC ingress overwrites it for every packet.
 */
enum mark {
	MARK_CONTROL_ROUTER = 1,       /* with MARK_CONTROL: only to ports with a router */
	MARK_VLAN = 0xfff,             /* with MARK_PUNT: the VLAN id */
	MARK_SLOT = 0x3f,              /* with MARK_CHECK_*: which of settings.ids_slot */
	MARK_CLASS = 0xff000000u,
	MARK_PUNT = 0xa1000000u,       /* set at ingress */
	MARK_CONTROL = 0xa2000000u,    /* set at ingress */
	MARK_FORWARD = 0xa3000000u,    /* set by the daemon on release */
	MARK_CHECK_IN = 0xa4000000u,   /* by the daemon: to ids-in */
	MARK_CHECK_OUT = 0xa5000000u,  /* by the daemon: to ids-out */
	MARK_OPEN = 0xa6000000u,       /* the operator chose open. Set at ingress */
	MARK_REDIRECT = 0xa7000000u,   /* decided and counted at ingress; for egress by TCX */
	MARK_DELIVER = 0xa8000000u,    /* the same, from XDP to TC ingress, which sends it out of the port */
	MARK_PORT = 0xff,              /* with MARK_DELIVER: the port id */
};

/* What XDP writes in front of a frame that it passes up, for TC ingress. */
struct meta {
	__u32 magic;            /* META_MAGIC */
	enum mark mark;
	__u32 tag;              /* the outer tag as XDP saw it: its VLAN id | META_TAGGED; 0 for none */
};
#define META_TAGGED 0x10000
#define META_MAGIC 0x766d6774u

_Static_assert(sizeof(struct mac_key) == 12, "mac_key");
_Static_assert(sizeof(struct addr_key) == 24, "addr_key");
_Static_assert(sizeof(struct addr_entry) == 16, "addr_entry");
_Static_assert(sizeof(struct flow_key) == 44, "flow_key");
_Static_assert(sizeof(struct flow_dir) == 56, "flow_dir");
_Static_assert(sizeof(struct flow) == 152, "flow");
_Static_assert(sizeof(struct pending) == 64, "pending");
_Static_assert(sizeof(struct verdict_entry) == 32, "verdict_entry");
_Static_assert(sizeof(struct owner) == 40, "owner");
_Static_assert(sizeof(struct rule) == 64, "rule");
_Static_assert(sizeof(struct event) == 104, "event");
_Static_assert(sizeof(struct dhcp_event) == 624, "dhcp_event");

#endif
