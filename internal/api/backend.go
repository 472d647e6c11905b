// Package api is the daemon's interface for its command line and other local
// programs: HTTP with JSON over a unix socket. Only root, the daemon's own user
// and members of the configured group may use it (peer credentials decide).
package api

import (
	"context"
	"errors"
	"net/netip"
	"time"

	"github.com/vmgate/vmgate/internal/event"
	"github.com/vmgate/vmgate/pkg/verdict"
	"github.com/vmgate/vmgate/pkg/vmi"
)

// Errors of a Backend that the server turns into a status of their own; wrap
// them so that the message names the thing.
var (
	ErrNotFound    = errors.New("not found")   // 404
	ErrInvalid     = errors.New("invalid")     // 400
	ErrUnavailable = errors.New("unavailable") // 503: introspection failed, IDS down
)

// Backend is what the daemon offers. Implementations are safe for concurrent use.
type Backend interface {
	Status(ctx context.Context) (Status, error)
	VMs(ctx context.Context) ([]VM, error)
	Processes(ctx context.Context, vm string) ([]Process, error)
	Sockets(ctx context.Context, vm string) ([]vmi.Socket, error)
	// Owner finds the processes that hold a socket of a VM. That there is none is
	// an answer too: it says why, and who could send nevertheless.
	Owner(ctx context.Context, query OwnerQuery) (vmi.Answer, error)
	// Fingerprint identifies the program that a process runs, by its text.
	Fingerprint(ctx context.Context, vm string, pid uint32) (vmi.Fingerprint, error)
	// Findings says what in a VM does not fit together: hidden processes and
	// modules, hooks, sockets that nobody holds, and what could not be looked at.
	Findings(ctx context.Context, vm string) ([]vmi.Finding, error)
	// Modules lists the kernel modules of a VM, hidden ones too.
	Modules(ctx context.Context, vm string) ([]vmi.Module, error)

	Verdicts(ctx context.Context) ([]PortVerdict, error)
	SetVerdict(ctx context.Context, change VerdictChange) error
	DeleteVerdict(ctx context.Context, port Port) error

	Flows(ctx context.Context) ([]Flow, error)

	Lists(ctx context.Context) ([]ListEntry, error)
	AddListEntry(ctx context.Context, entry ListEntry) error
	// ImportListEntries adds all of the entries or, if one is refused, none.
	ImportListEntries(ctx context.Context, entries []ListEntry) error
	RemoveListEntry(ctx context.Context, id string) error

	Policy(ctx context.Context) (Policy, error)
	// CheckConfig validates a whole configuration text and says what would change.
	CheckConfig(ctx context.Context, text []byte) (Changes, error)
	// ApplyConfig does the same, then replaces the configuration file and reloads.
	ApplyConfig(ctx context.Context, text []byte) (Changes, error)
	// Reload reads the configuration file again.
	Reload(ctx context.Context) (Changes, error)

	IDS(ctx context.Context) (IDS, error)
	// ReloadIDS has the engine take over the rule files as they are now. What it does
	// not take is ErrInvalid with the engine's own words, and the rules of before stay.
	ReloadIDS(ctx context.Context) error
	// TestIDS has the engine read the rule files without taking them over.
	TestIDS(ctx context.Context) error

	// Report takes in what another tool says.
	Report(ctx context.Context, r Report) error
	// Measure takes or lifts a measure at VM scope, or at process scope if PID is set.
	Measure(ctx context.Context, m Measure) error
	Explain(ctx context.Context, t Tuple) (Explanation, error)
	// Monitor streams events until ctx is done; a slow reader loses events, which
	// are counted in an event of type "lost".
	Monitor(ctx context.Context) (<-chan event.Event, error)
}

// Status is the state of the daemon and its parts.
type Status struct {
	Version     string            `json:"version"`
	PID         int               `json:"pid"`
	Started     time.Time         `json:"started"`
	Config      string            `json:"config"`               // path of the file
	Loaded      time.Time         `json:"loaded"`               // when it was last loaded with success
	LastError   string            `json:"last_error,omitempty"` // of the last reload that failed
	Enforcement string            `json:"enforcement"`
	Segments    []SegmentStatus   `json:"segments"`
	IDS         IDSStatus         `json:"ids"`
	VMs         int               `json:"vms"`
	Flows       int               `json:"flows"`
	Pending     int               `json:"pending"`
	Failure     map[string]string `json:"failure"` // condition -> knob
	Counters    []Counter         `json:"counters"`
}

// SegmentStatus is the state of one segment's vNIC.
type SegmentStatus struct {
	Name     string `json:"name"`
	VNIC     string `json:"vnic"`
	State    string `json:"state"`    // attached, missing
	Datapath string `json:"datapath"` // xdp, tcx or xdp-generic; empty while the vNIC is missing
	Detail   string `json:"detail,omitempty"`
}

// IDSStatus is the state of the engine.
type IDSStatus struct {
	Engine   string    `json:"engine"` // empty: none
	State    string    `json:"state"`  // none, starting, up, down
	PID      int       `json:"pid,omitempty"`
	Since    time.Time `json:"since"`
	Restarts int       `json:"restarts"`
	Detail   string    `json:"detail,omitempty"`
}

// Counter is one data plane counter that is not zero.
type Counter struct {
	Segment string `json:"segment"` // or ids-in, ids-out
	Reason  string `json:"reason"`
	Packets uint64 `json:"packets"`
	Bytes   uint64 `json:"bytes"`
}

// VM is an inventory entry and its state.
type VM struct {
	ID        string    `json:"id"`
	Name      string    `json:"name"`
	Segment   string    `json:"segment"`
	Router    bool      `json:"router,omitempty"`
	MACs      []string  `json:"macs"`
	Addresses []string  `json:"addresses"`
	Learned   []Learned `json:"learned,omitempty"` // those of Addresses that are not configured
	Memory    string    `json:"memory"`            // none, waiting, ready, failing
	OS        string    `json:"os,omitempty"`
	Detail    string    `json:"detail,omitempty"`
	Verdict   string    `json:"verdict"`
	Cause     string    `json:"cause"`
	Flows     int       `json:"flows"`
}

// Learned is an address that a VM has though it is not configured: it was the first
// to claim it, or a DHCP server has leased it to the VM.
type Learned struct {
	Address string     `json:"address"`
	From    string     `json:"from"`             // claim, lease
	Server  string     `json:"server,omitempty"` // of a lease: the router's id
	Until   *time.Time `json:"until,omitempty"`  // of a lease
}

// Process is a process of a VM and the verdict that stands on it.
type Process struct {
	vmi.Process
	Verdict string `json:"verdict"`
	Cause   string `json:"cause"`
}

// Port names a port of a VM.
type Port struct {
	VM    string `json:"vm"`
	Proto string `json:"proto"` // tcp, udp, … or a number
	Port  uint16 `json:"port"`
}

// OwnerQuery names a socket of a VM by its local end. The zero values of what
// follows the port stand for any.
type OwnerQuery struct {
	Port
	Addr   netip.Addr     // local
	Remote netip.AddrPort // what it is connected to
	NetNS  uint32         // the guest's network namespace, as /proc/PID/ns/net shows it
}

// PortVerdict is one entry of the verdicts map.
type PortVerdict struct {
	Port
	Verdict  string           `json:"verdict"`
	Cause    string           `json:"cause"`
	Owner    *verdict.Process `json:"owner,omitempty"`
	Observed time.Time        `json:"observed"`
	Expires  *time.Time       `json:"expires,omitempty"`
}

// VerdictChange sets the verdict of a port by hand.
type VerdictChange struct {
	Port
	Verdict string        `json:"verdict"`          // forward, check or drop
	For     time.Duration `json:"for_ns,omitempty"` // 0: until deleted
	By      string        `json:"by,omitempty"`     // filled by the server from peer credentials
}

// Flow is one decided flow.
type Flow struct {
	Proto   string        `json:"proto"`
	VLAN    string        `json:"vlan,omitempty"`
	Src     FlowEnd       `json:"src"` // the initiator
	Dst     FlowEnd       `json:"dst"`
	Verdict string        `json:"verdict"` // the strictest of all scopes, now
	Cause   string        `json:"cause"`
	Rule    string        `json:"rule"`
	Age     time.Duration `json:"age_ns"`
	Idle    time.Duration `json:"idle_ns"`
}

// FlowEnd is one end of a flow; the counters are of the packets it sent.
type FlowEnd struct {
	Addr    string           `json:"addr"`
	Port    uint16           `json:"port"`
	VM      string           `json:"vm,omitempty"`
	Process *verdict.Process `json:"process,omitempty"`
	Packets uint64           `json:"packets"`
	Bytes   uint64           `json:"bytes"`
}

// ListEntry is an entry of the suspect or the malicious list.
type ListEntry struct {
	ID          string    `json:"id"`     // made by the daemon; empty in AddListEntry
	List        string    `json:"list"`   // suspect or malicious
	Origin      string    `json:"origin"` // config, learned, operator, import, report
	Name        string    `json:"name,omitempty"`
	Path        string    `json:"path,omitempty"`
	Fingerprint string    `json:"fingerprint,omitempty"`
	VM          string    `json:"vm,omitempty"`
	PID         uint32    `json:"pid,omitempty"` // learned entries name one instance
	Start       uint64    `json:"start_ns,omitempty"`
	Reason      string    `json:"reason,omitempty"`
	Added       time.Time `json:"added"`
	Expires     time.Time `json:"expires,omitzero"` // of reports
}

// Policy is the policy in force.
type Policy struct {
	Default string `json:"default"`
	Rules   []Rule `json:"rules"`
}

// Rule is one rule as people read it, with the flows that bear it.
type Rule struct {
	Name   string `json:"name"`
	Line   int    `json:"line"`
	Match  string `json:"match"` // "segment apps -> vm web1 tcp/80"
	Action string `json:"action"`
	Alert  bool   `json:"alert"`
	Flows  int    `json:"flows"`
}

// Changes lists what a configuration would change or has changed, a line each.
type Changes struct {
	Lines []string `json:"lines"`
}

// Measure is one of the paper's four measures, or release.
type Measure struct {
	Action string `json:"action"` // isolate, inspect or release
	VM     string `json:"vm"`
	PID    uint32 `json:"pid,omitempty"` // 0: the VM as a whole
	By     string `json:"by,omitempty"`  // filled by the server from peer credentials
}

// Tuple names a flow to explain.
type Tuple struct {
	Proto   string `json:"proto"`
	Src     string `json:"src"` // address
	SrcPort uint16 `json:"src_port"`
	Dst     string `json:"dst"`
	DstPort uint16 `json:"dst_port"`
}

// Explanation says what would happen to a packet of a flow, and why.
type Explanation struct {
	Flow     verdict.Flow     `json:"flow"`
	Verdict  string           `json:"verdict"`
	Cause    string           `json:"cause"`
	Rule     string           `json:"rule"`
	Location string           `json:"location"` // FILE:LINE of the rule
	SrcOwner verdict.Owner    `json:"src_owner"`
	DstOwner verdict.Owner    `json:"dst_owner"`
	Decision verdict.Decision `json:"decision"`
	InMap    bool             `json:"in_map"` // the flow is decided already, and the answer is what stands
	Notes    []string         `json:"notes,omitempty"`
}
