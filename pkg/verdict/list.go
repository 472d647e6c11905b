package verdict

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"
)

// Errors of the lists that a caller can act on; test with errors.Is.
var (
	// ErrNoEntry: no list entry has this id.
	ErrNoEntry = errors.New("no such list entry")
	// ErrConfigured: the entry stands in the configuration file and goes only with it.
	ErrConfigured = errors.New("the entry is from the configuration file: remove it there and reload")
	// ErrInvalidEntry: the entry cannot match, or would match everything.
	ErrInvalidEntry = errors.New("invalid list entry")
	// ErrFull: the lists hold as many entries as they may.
	ErrFull = errors.New("the lists are full: remove entries first")
)

// ListKind names one of the two lists.
type ListKind string

// The lists. What is on the suspect list is checked, what is on the malicious
// list is dropped.
const (
	Suspect   ListKind = "suspect"
	Malicious ListKind = "malicious"
)

// Verdict is what being on the list asks for. A list that does not exist drops.
func (k ListKind) Verdict() Verdict {
	if k == Suspect {
		return Check
	}
	return Drop
}

// Cause is the cause of the list's verdict.
func (k ListKind) Cause() Cause {
	if k == Suspect {
		return CauseSuspect
	}
	return CauseMalicious
}

// Origin says where a list entry comes from.
type Origin string

// The origins of list entries.
const (
	OriginConfig   Origin = "config"   // the configuration file
	OriginLearned  Origin = "learned"  // evidence at run time; always of one instance
	OriginOperator Origin = "operator" // added by hand
	OriginImport   Origin = "import"   // imported, for example from vulnerability data
	OriginReport   Origin = "report"   // another tool's, for a time
)

// ListEntry is an entry of one of the lists. With Instance it matches that one
// process, and Name, Path and Fingerprint only describe it; without, it matches
// every process that agrees exactly with all of Name, Path, Fingerprint and VM
// that are given.
type ListEntry struct {
	ID          string    `json:"id"` // made from the content by the Book
	List        ListKind  `json:"list"`
	Origin      Origin    `json:"origin"`
	Name        string    `json:"name,omitempty"`
	Path        string    `json:"path,omitempty"`
	Fingerprint string    `json:"fingerprint,omitempty"` // ELF build id in hex
	VM          string    `json:"vm,omitempty"`          // empty: in any VM
	Instance    *Instance `json:"instance,omitempty"`
	// Cause says what a learned entry was learned by (alert, report, hidden); it is
	// CauseNone for others.
	Cause  Cause     `json:"cause"`
	Reason string    `json:"reason,omitempty"` // for people
	Added  time.Time `json:"added"`
	// Expires is when the entry goes by itself; zero: never.
	Expires time.Time `json:"expires,omitzero"`
}

// maxComm is how many bytes of a process's name Linux keeps (TASK_COMM_LEN
// without the final NUL).
const maxComm = 15

// Validate says whether the entry can match a process, and not all of them.
func (e *ListEntry) Validate() error {
	switch {
	case e.List != Suspect && e.List != Malicious:
		return fmt.Errorf("%w: unknown list %q: want suspect or malicious", ErrInvalidEntry, e.List)
	case e.Instance != nil:
		return nil
	case e.Name == "" && e.Path == "" && e.Fingerprint == "":
		return fmt.Errorf("%w: it would match every process: give a name, a path or a fingerprint", ErrInvalidEntry)
	case len(e.Name) > maxComm:
		return fmt.Errorf("%w: name %q has %d bytes, but Linux keeps %d: give the first %d, or the path",
			ErrInvalidEntry, e.Name, len(e.Name), maxComm, maxComm)
	case e.Path != "" && !strings.HasPrefix(e.Path, "/"):
		return fmt.Errorf("%w: path %q is not absolute", ErrInvalidEntry, e.Path)
	}
	if _, err := hex.DecodeString(e.Fingerprint); err != nil {
		return fmt.Errorf("%w: fingerprint %q is not an ELF build id in hex", ErrInvalidEntry, e.Fingerprint)
	}
	return nil
}

// cause is the cause of the verdict that the entry asks for.
func (e *ListEntry) cause() Cause {
	if e.Cause != CauseNone {
		return e.Cause
	}
	return e.List.Cause()
}

// matches says whether an entry without instance matches p.
func (e *ListEntry) matches(p *Process) bool {
	return (e.VM == "" || e.VM == p.VM) &&
		(e.Name == "" || e.Name == p.Name) &&
		(e.Path == "" || e.Path == p.Path) &&
		(e.Fingerprint == "" || strings.EqualFold(e.Fingerprint, p.Fingerprint))
}

// evidence is what the entry says of p, which it matches.
func (e *ListEntry) evidence(p *Process) Evidence {
	detail := fmt.Sprintf("%s list, entry %s (%s)", e.List, e.ID, e.Origin)
	if e.Reason != "" {
		detail += ": " + e.Reason
	}
	return Evidence{
		Kind: EvidenceList, Observed: e.Added, VM: p.VM, Process: p,
		Verdict: e.List.Verdict(), Cause: e.cause(), Detail: detail,
	}
}

// normalized returns the entry with the id that its content gives it. Reason,
// Cause, Added and Expires are no part of what an entry is about.
func (e ListEntry) normalized() ListEntry {
	e.Fingerprint = strings.ToLower(e.Fingerprint)
	if e.Instance != nil {
		instance := *e.Instance
		e.Instance, e.VM = &instance, instance.VM
	}
	h := sha256.New()
	fmt.Fprintf(h, "%q %q", e.List, e.Origin)
	if e.Instance != nil {
		fmt.Fprintf(h, " instance %q %d %d", e.Instance.VM, e.Instance.PID, e.Instance.Start)
	} else {
		fmt.Fprintf(h, " %q %q %q %q", e.Name, e.Path, e.Fingerprint, e.VM)
	}
	e.ID = string(e.List[:1]) + "-" + hex.EncodeToString(h.Sum(nil)[:8])
	return e
}

func (e *ListEntry) clone() ListEntry {
	c := *e
	if e.Instance != nil {
		instance := *e.Instance
		c.Instance = &instance
	}
	return c
}
