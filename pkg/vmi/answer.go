package vmi

import "time"

// Answer is what Owners found, and how it was checked.
type Answer struct {
	Owners []Process   `json:"owners"`
	State  SocketState `json:"state"`
	Note   string      `json:"note,omitempty"` // for people: what State means for this answer
	// Candidates are named where no socket explains the packet (no owner): the
	// processes that could have sent it without a socket bound to its port, for
	// StateElsewhere those that hold the port for other connections, and for
	// StateInFlight those between which the socket travels. Any of them may be
	// innocent.
	Candidates []Process `json:"candidates,omitempty"`
	// Untraced is how many sockets could have sent the packet too, but no process
	// was found to hold them: the candidates are not all there are.
	Untraced int `json:"untraced,omitempty"`
	// Past are the processes that were seen to hold this very socket before, the
	// latest first, where its owners do not (any more).
	Past     []PastOwner   `json:"past,omitempty"`
	ReadAt   time.Time     `json:"read_at"`
	Took     time.Duration `json:"took_ns"`
	Cached   bool          `json:"cached"`   // from the (task, fd) cache, verified again
	Verified string        `json:"verified"` // what was read again and agreed
}

// SocketState says what became of the socket that a query names, and so what
// its owners are owners of.
type SocketState string

// The states of a socket that a query names.
const (
	// StateHeld: the owners hold it.
	StateHeld SocketState = "held"
	// StateListening: it does not exist (yet); the owners listen on the port.
	StateListening SocketState = "listening"
	// StateElsewhere: some of the candidates hold the port for connections to
	// others, and nobody for this one. It is theirs if its addresses were translated
	// in the guest; or its sender has gone; or it is forged.
	StateElsewhere SocketState = "elsewhere"
	// StateHalfOpen: its handshake is under way; the owners listen on the port.
	StateHalfOpen SocketState = "half-open"
	// StateUnaccepted: it is open, but was not accepted yet by the owners, which
	// listen on the port.
	StateUnaccepted SocketState = "unaccepted"
	// StateTimeWait: it is closed and the kernel remembers its addresses only; the
	// owners, if any, listen on the port.
	StateTimeWait SocketState = "time-wait"
	// StateClosed: its process has closed it and the kernel still sends what is
	// left; the owners, if any, listen on the port.
	StateClosed SocketState = "closed"
	// StateInFlight: it is in a unix socket's queue, on its way from one process
	// to another, and nobody holds it meanwhile.
	StateInFlight SocketState = "in-flight"
	// StateKernel: the guest's kernel made it for itself.
	StateKernel SocketState = "kernel"
	// StateOrphan: it is open, and no process was found to hold it.
	StateOrphan SocketState = "orphan"
	// StateNone: there is no such socket.
	StateNone SocketState = "none"
)

// PastOwner is a process that was seen to hold the socket a query names, some
// time before the answer. It was read then and cannot be verified any more: the
// port may have had another owner since.
type PastOwner struct {
	Process
	Seen time.Time `json:"seen"` // when it was last seen to hold the socket
}
