// Package truth is what a Linux guest says of itself: its processes and sockets
// as its own /proc lists them. The workload program reads it inside of a guest,
// tests of introspection compare with it.
package truth

import "net/netip"

// Truth is one reading of /proc.
type Truth struct {
	Reader    int // pid of the process that read all this
	Processes []Process
	Sockets   []Socket
	Holders   map[uint64][]int // of each socket by its inode: who has it among its descriptors, ascending pids
}

// Process is one directory of /proc.
type Process struct {
	PID, PPID int
	Ticks     uint64 // start, in 1/100 s since boot
	Name      string // kernel threads' are followed by what they do, or longer than the kernel's own 15 bytes
	Path      string // "" for kernel threads
	Args      []string
	UID       int
	Kernel    bool
	NetNS     uint32 // number of its network namespace; 0 where it has ended
	Cgroups   []string
	Threads   int
}

// Socket is one line of a table in /proc/net.
type Socket struct {
	Table  string // "tcp", "tcp6", …
	NetNS  uint32
	Local  netip.AddrPort
	Remote netip.AddrPort
	State  int
	Inode  uint64
}
