package verdict

import (
	"fmt"
	"net/netip"
	"strconv"
	"time"
)

// Instance names one process: not a program, but one run of it.
type Instance struct {
	VM    string `json:"vm"`
	PID   uint32 `json:"pid"`
	Start uint64 `json:"start_ns"` // nanoseconds since the guest's boot
}

// Process is what introspection says of a process.
type Process struct {
	Instance
	Name        string `json:"name"`                  // comm, at most 15 bytes
	Path        string `json:"path,omitempty"`        // of the executable, as the guest sees it
	UID         uint32 `json:"uid"`                   // effective user id
	Fingerprint string `json:"fingerprint,omitempty"` // ELF build id in hex
	Hidden      bool   `json:"hidden"`                // agreed by several samples
}

// String writes the process for people: "python3[812]". The guest chose the
// name, so what a terminal would act on is escaped.
func (p *Process) String() string {
	return fmt.Sprintf("%s[%d]", escape(p.Name), p.PID)
}

func escape(s string) string {
	quoted := strconv.Quote(s)
	return quoted[1 : len(quoted)-1]
}

// OwnerState says how an owner look-up ended.
type OwnerState uint8

// How an owner look-up ended.
const (
	// OwnerUndeclared: the inventory declares no way to the VM's memory, or the
	// end is no VM. Such an end is judged at VM level and by policy alone.
	OwnerUndeclared OwnerState = iota
	// OwnerKnown: Processes holds at least one owner.
	OwnerKnown
	// OwnerNone: memory was read and no process holds the port.
	OwnerNone
	// OwnerUnavailable: memory was declared but could not be read, understood, or
	// read in time; Detail says which.
	OwnerUnavailable
)

var ownerStateNames = [...]string{"undeclared", "known", "none", "unavailable"}

// String returns the state's name.
func (s OwnerState) String() string {
	if int(s) < len(ownerStateNames) {
		return ownerStateNames[s]
	}
	return fmt.Sprintf("owner-state(%d)", uint8(s))
}

// MarshalText implements encoding.TextMarshaler.
func (s OwnerState) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (s *OwnerState) UnmarshalText(b []byte) error {
	for i, name := range ownerStateNames {
		if name == string(b) {
			*s = OwnerState(i)
			return nil
		}
	}
	return fmt.Errorf("unknown owner state %q", b)
}

// Owner is the answer to "which process holds this end of the flow?".
type Owner struct {
	State     OwnerState `json:"state"`
	Processes []Process  `json:"processes,omitempty"` // several when a socket is shared
	// Past are, where there is no owner, those that were seen to hold the port
	// shortly before. What stands against them counts, but nothing speaks for them.
	Past []Process `json:"past,omitempty"`
	// Candidates are processes that could have sent the flow's packets though no
	// socket of theirs explains them; Untraced is how many more there are whom
	// nobody can name.
	Candidates []Process `json:"candidates,omitempty"`
	Untraced   int       `json:"untraced,omitempty"`
	Detail     string    `json:"detail,omitempty"`
	Observed   time.Time `json:"observed"`
}

// Endpoint is one end of a flow as the inventory knows it.
type Endpoint struct {
	VM      string     `json:"vm,omitempty"`     // inventory id, empty if the end is no VM
	Router  string     `json:"router,omitempty"` // inventory id of the router that the end lies behind
	Segment string     `json:"segment,omitempty"`
	WAN     bool       `json:"wan,omitempty"` // the end lies in or behind a segment of kind wan
	Addr    netip.Addr `json:"addr"`
	Port    uint16     `json:"port"` // ICMP echo: the identifier at both ends
}

// Flow is one connection; Src is the end that sent the first packet.
type Flow struct {
	Src   Endpoint `json:"src"`
	Dst   Endpoint `json:"dst"`
	Proto uint8    `json:"proto"` // IP protocol number
	VLAN  uint16   `json:"vlan,omitempty"`
	Inner uint16   `json:"inner_vlan,omitempty"`
}

// Request asks for the decision on a flow.
type Request struct {
	Flow     Flow
	SrcOwner Owner
	DstOwner Owner
	Now      time.Time
}

// EvidenceKind says what sort of observation a piece of evidence is.
type EvidenceKind string

// The kinds of evidence.
const (
	EvidenceRule          EvidenceKind = "rule"
	EvidenceOwner         EvidenceKind = "owner"
	EvidenceCandidate     EvidenceKind = "candidate" // could have sent it; nobody is convicted by that
	EvidenceHidden        EvidenceKind = "hidden"
	EvidenceList          EvidenceKind = "list"
	EvidenceAlert         EvidenceKind = "alert"
	EvidenceReport        EvidenceKind = "report"
	EvidenceVMRule        EvidenceKind = "vm-rule"
	EvidenceOperator      EvidenceKind = "operator"
	EvidenceIntrospection EvidenceKind = "introspection"
)

// Evidence is what a verdict rests on.
type Evidence struct {
	Kind     EvidenceKind `json:"kind"`
	Observed time.Time    `json:"observed"`
	VM       string       `json:"vm,omitempty"`
	Process  *Process     `json:"process,omitempty"` // nil: about the VM
	Verdict  Verdict      `json:"verdict"`           // what this evidence asks for
	Cause    Cause        `json:"cause"`
	Detail   string       `json:"detail"`           // for people: rule and line, list entry, alert text, who
	Expires  time.Time    `json:"expires,omitzero"` // of a report: until when it stands; zero: until it is lifted
}

// ScopeKind says what a verdict is about.
type ScopeKind string

// The scopes of a verdict.
const (
	ScopeVM      ScopeKind = "vm"
	ScopeProcess ScopeKind = "process"
	ScopeRule    ScopeKind = "rule"
	ScopeFlow    ScopeKind = "flow"
)

// Effect is a change of the standing verdict of a process or a VM, to be
// written to the kernel's maps by the caller. Verdict Forward lifts what stood.
type Effect struct {
	Scope    ScopeKind  `json:"scope"` // ScopeVM or ScopeProcess
	VM       string     `json:"vm"`
	Process  *Process   `json:"process,omitempty"`
	Verdict  Verdict    `json:"verdict"`
	Cause    Cause      `json:"cause"`
	Evidence []Evidence `json:"evidence"`
}

// Standing is the verdict on one end's process (or on a VM) that a decision
// found or made.
type Standing struct {
	Verdict Verdict `json:"verdict"`
	Cause   Cause   `json:"cause"`
}

// innocent is the standing of that which nothing is known against.
var innocent = Standing{Verdict: Forward}

// causeOrder breaks ties between equally strict verdicts: what convicts comes
// first, what is said of one instance before what is said of many flows.
var causeOrder = [...]Cause{
	CauseMalicious, CauseAlert, CauseReport, CauseOperator, CauseHidden, CauseSuspect,
	CauseSpoof, CauseIntrospection, CauseNoOwner, CauseRule, CauseNone,
}

// strictest returns the stricter of two standings; of equally strict ones that
// with the earlier cause in causeOrder.
func (s Standing) strictest(other Standing) Standing {
	if other.Verdict > s.Verdict ||
		other.Verdict == s.Verdict && causeRank(other.Cause) < causeRank(s.Cause) {
		return other
	}
	return s
}

func causeRank(c Cause) int {
	for rank, cause := range causeOrder {
		if cause == c {
			return rank
		}
	}
	return len(causeOrder)
}

// Decision is the answer to a Request. Verdict is the strictest of all its
// parts; the caller writes each part at its own scope (rule, owners, VMs,
// flow), so that later changes of one scope take effect over all its flows.
type Decision struct {
	Verdict Verdict `json:"verdict"`
	Cause   Cause   `json:"cause"`
	// Rule is the name of the policy rule that matched first ("default" for none),
	// Line its line in the configuration file (0 if unknown).
	Rule string `json:"rule"`
	Line int    `json:"line,omitempty"`
	// Alert is set when the rule asks for an event of type alert.
	Alert bool `json:"alert,omitempty"`
	// RuleVerdict, SrcProcess, DstProcess, SrcVM, DstVM and FlowOnly are the parts.
	// A process part is Undecided where no owner is known.
	RuleVerdict Verdict  `json:"rule_verdict"`
	SrcProcess  Standing `json:"src_process"`
	DstProcess  Standing `json:"dst_process"`
	SrcVM       Standing `json:"src_vm"`
	DstVM       Standing `json:"dst_vm"`
	FlowOnly    Standing `json:"flow_only"` // no owner, failed introspection
	// Effects are standing verdicts that this decision changed (a hidden process
	// put on the suspect list).
	Effects  []Effect   `json:"effects,omitempty"`
	Evidence []Evidence `json:"evidence"`
}
