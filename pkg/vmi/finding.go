package vmi

// Finding is one thing about a guest that does not fit together, with what was
// seen. It says where to look, not who is guilty.
type Finding struct {
	Kind     FindingKind `json:"kind"`
	Severity Severity    `json:"severity"`
	Subject  string      `json:"subject"`       // what it is about: "process 42 (sh)", "module x", "function tcp4_seq_show"
	PID      uint32      `json:"pid,omitempty"` // of the process, where it is about one
	Evidence string      `json:"evidence"`      // for people: what shows it, what does not, in how many samples
	Views    []string    `json:"views,omitempty"`
}

// FindingKind says what a finding is about.
type FindingKind string

// The kinds of findings.
const (
	// HiddenProcess: the guest's own ps does not show it.
	HiddenProcess FindingKind = "hidden-process"
	// UnlinkedProcess: ps shows it, but a list that all processes are on does not.
	UnlinkedProcess FindingKind = "unlinked-process"
	// AlteredProcess: its own record names another pid than the rest of the kernel
	// knows it by.
	AlteredProcess FindingKind = "altered-process"
	// PosingProcess: it calls itself as kernel threads are called.
	PosingProcess FindingKind = "posing-process"
	// DeletedProgram: the file that it executes was deleted; updates do that too.
	DeletedProgram FindingKind = "deleted-program"
	// HiddenSocket: a process holds it, but a table that the guest's own listing
	// of sockets is made from does not have it.
	HiddenSocket FindingKind = "hidden-socket"
	// OrphanSocket: a socket is open, but no process holds it; low where it is on
	// its way between two processes.
	OrphanSocket FindingKind = "orphan-socket"
	// HiddenModule: kernel code that lsmod does not show.
	HiddenModule FindingKind = "hidden-module"
	// HookedTable: a table of functions leads out of the kernel's text.
	HookedTable FindingKind = "hooked-table"
	// HookedFunction: a function that lists processes or sockets calls or jumps
	// elsewhere where it begins. Tracing looks alike: nobody is convicted by it.
	HookedFunction FindingKind = "hooked-function"
	// Unchecked: something could not be looked at, and is not known to be clean.
	Unchecked FindingKind = "unchecked"
)

// Severity is how much a finding says by itself.
type Severity string

// The severities, strongest first.
const (
	High    Severity = "high"    // nothing harmless looks like this
	Medium  Severity = "medium"  // rare in a healthy guest
	Low     Severity = "low"     // tracing and debugging look alike
	Unknown Severity = "unknown" // could not be looked at
)
