package vmi

import (
	"context"
	"errors"
	"net/netip"
)

// Errors that a caller can act on; test with errors.Is.
var (
	// ErrNotReady: the memory holds no kernel yet (the guest has not booted).
	ErrNotReady = errors.New("guest has not booted yet")
	// ErrNotUnderstood: there is a kernel, but it cannot be introspected.
	ErrNotUnderstood = errors.New("guest kernel not understood")
	// ErrChanged: the kernel that was discovered is gone (reboot); open again.
	ErrChanged = errors.New("guest kernel has changed")
	// ErrNoNamespace: the guest has no network namespace of the number asked for.
	ErrNoNamespace = errors.New("no such network namespace")
	// ErrUnstable: the memory kept changing under the read; try again.
	ErrUnstable = errors.New("guest memory unstable")
)

// Memory is a guest's physical memory. Implementations are safe for concurrent
// use and never write.
type Memory interface {
	// ReadPhys fills p from guest-physical address addr. Holes in the address
	// space are errors; holes in a sparse backing file read as zeros and are not
	// allocated.
	ReadPhys(p []byte, addr uint64) error
	// Ranges lists the populated guest-physical ranges in ascending order. It may
	// be called again: a sparse file fills as the guest runs.
	Ranges() ([]Range, error)
	Close() error
}

// BlockReader is Memory that takes about as long to read a few bytes as to read a
// block. What searches it reads whole blocks.
type BlockReader interface {
	Memory
	BlockSize() int // bytes
}

// RegisterReader is Memory whose way leads to a processor's registers, too. Open
// asks it as it would Options.Registers, where that is nil.
type RegisterReader interface {
	Memory
	Registers(ctx context.Context) (Registers, error)
}

// Range is a half-open range of guest-physical addresses.
type Range struct{ Start, End uint64 }

// Guest is one running guest operating system, discovered in its memory. Its
// methods are safe for concurrent use. Linux is the implementation so far.
type Guest interface {
	// OS describes the kernel, for people: "Linux 6.1.0-…".
	OS() string
	// Owners finds the processes that hold the socket which query names. No owner
	// is not an error: Answer.Owners is empty then.
	Owners(ctx context.Context, query Query) (Answer, error)
	// Processes lists all processes over all views, with the views that show each.
	Processes(ctx context.Context) ([]Process, error)
	// Sockets lists all bound or connected sockets with their owners.
	Sockets(ctx context.Context) ([]Socket, error)
	// Alive says whether the instance still runs.
	Alive(ctx context.Context, pid uint32, start uint64) (bool, error)
	// Modules lists the kernel's modules over all views.
	Modules(ctx context.Context) ([]Module, error)
	// Findings compares all views of the guest and says what does not fit
	// together, strongest first. What could not be looked at is among them.
	Findings(ctx context.Context) ([]Finding, error)
	// Sweep reads which sockets have come and gone since the last one, and
	// remembers who held them, for Answer.Past. Once a second is good.
	Sweep(ctx context.Context) error
	// Fingerprint identifies the program that an instance runs, by its text.
	Fingerprint(ctx context.Context, pid uint32, start uint64) (Fingerprint, error)
}

// Query names a socket by its local end; the remote end narrows it down where
// several sockets share the port, and may be zero, as may the local address.
// For ICMP the local port is the identifier of an echo request, or zero; other
// protocols than TCP and UDP have none. Unless NetNS names
// one, every network namespace of the guest is looked at; where its addresses are translated on the way out, the ports must
// be the guest's own.
type Query struct {
	Proto  uint8 // IPPROTO_TCP, IPPROTO_UDP, IPPROTO_ICMP, …
	Local  netip.AddrPort
	Remote netip.AddrPort
	NetNS  uint32 // the one namespace to look at, as Process.NetNS; 0: all of them
}

// Process is one process (thread group) of the guest.
type Process struct {
	PID       uint32     `json:"pid"`
	PPID      uint32     `json:"ppid"`
	Start     uint64     `json:"start_ns"` // ns since boot (task start_boottime)
	Name      string     `json:"name"`
	Path      string     `json:"path,omitempty"`
	Args      []string   `json:"args,omitempty"`
	UID       uint32     `json:"uid"`
	Kernel    bool       `json:"kernel"`              // a kernel thread
	ArgsCut   bool       `json:"args_cut,omitempty"`  // there are more than were read
	BuildID   string     `json:"build_id,omitempty"`  // GNU build id in hex, or Go build id; empty where not resident
	Cgroup    string     `json:"cgroup,omitempty"`    // path in the unified hierarchy, else in one of version 1, from the outside
	Container string     `json:"container,omitempty"` // the innermost container's id, as its cgroup is named
	NetNS     uint32     `json:"net_ns,omitempty"`    // number of the network namespace, as in /proc/PID/ns/net; 0 for kernel threads
	Parents   []Ancestor `json:"parents,omitempty"`   // the parent first
	Views     []string   `json:"views"`               // of tasks, pids, tree, slab, running: those that show it; who is not running sleeps
	Hidden    bool       `json:"hidden"`
	HiddenWhy string     `json:"hidden_why,omitempty"` // which views miss it, over how many samples
	Via       string     `json:"via,omitempty"`        // of an owner or candidate: what it holds, as "descriptor 5" or "packet socket"
}

// Module is one module of the guest's kernel.
type Module struct {
	Name   string   `json:"name"`
	State  string   `json:"state"`  // live, coming, going or unformed
	Base   uint64   `json:"base"`   // kernel address of its text
	Size   uint64   `json:"size"`   // of its text, in bytes
	Views  []string `json:"views"`  // of list (lsmod), tree, sysfs, memory: those that show it
	Hidden bool     `json:"hidden"` // lsmod does not show it, in samples that agree
}

// Ancestor is a process that another comes from.
type Ancestor struct {
	PID   uint32 `json:"pid"`
	Start uint64 `json:"start_ns"` // as Process.Start
	Name  string `json:"name"`
}

// Socket is one socket of the guest and its owners' pids.
type Socket struct {
	Proto  uint8          `json:"proto"`
	Local  netip.AddrPort `json:"local"`
	Remote netip.AddrPort `json:"remote"`
	State  string         `json:"state"`
	Family string         `json:"family"` // ipv4, ipv6, packet or xdp; the latter two have no protocol and no addresses
	NetNS  uint32         `json:"net_ns,omitempty"`
	Inode  uint64         `json:"inode,omitempty"`
	PIDs   []uint32       `json:"pids"`
	// Unlisted: processes hold it, but it is missing from the kernel's tables of
	// sockets, by which the guest's own listings are made.
	Unlisted bool `json:"unlisted,omitempty"`
}
