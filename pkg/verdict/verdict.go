// Package verdict decides what happens to a connection between virtual
// machines: it holds the verdicts, the evidence they rest on, the suspect and
// malicious lists, the policy, and the one decision that every source of
// evidence goes through.
//
// The package is pure: it knows no kernel, does no I/O, reads no clock (callers
// pass the time) and imports nothing else of the project.
package verdict

import "fmt"

// Verdict says what happens to a packet. Verdicts are ordered by strictness;
// where several apply the strictest wins. The numbers are those of enum verdict
// in bpf/types.h.
type Verdict uint32

// The verdicts, least strict first.
const (
	// Undecided means that nothing has been decided: the packet is held.
	Undecided Verdict = iota
	// Forward lets the packet pass directly.
	Forward
	// Check sends the packet through the inline IDS.
	Check
	// Drop ends it.
	Drop
)

var verdictNames = [...]string{"undecided", "forward", "check", "drop"}

// String returns the verdict's name as it is written in configuration and output.
func (v Verdict) String() string {
	if int(v) < len(verdictNames) {
		return verdictNames[v]
	}
	return fmt.Sprintf("verdict(%d)", uint32(v))
}

// ParseVerdict is the inverse of String for forward, check and drop.
func ParseVerdict(s string) (Verdict, error) {
	for v := Forward; v <= Drop; v++ {
		if verdictNames[v] == s {
			return v, nil
		}
	}
	return Undecided, fmt.Errorf("unknown verdict %q: want forward, check or drop", s)
}

// MarshalText implements encoding.TextMarshaler.
func (v Verdict) MarshalText() ([]byte, error) { return []byte(v.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (v *Verdict) UnmarshalText(b []byte) (err error) {
	if string(b) == verdictNames[Undecided] {
		*v = Undecided
		return nil
	}
	*v, err = ParseVerdict(string(b))
	return err
}

// Strictest returns the strictest of the verdicts, Undecided for none.
func Strictest(vs ...Verdict) Verdict {
	strictest := Undecided
	for _, v := range vs {
		strictest = max(strictest, v)
	}
	return strictest
}

// Cause says why a verdict stands. The numbers are those of enum cause in
// bpf/types.h.
type Cause uint32

// The causes of a verdict.
const (
	CauseNone Cause = iota
	CauseRule
	CauseMalicious
	CauseSuspect
	CauseHidden
	CauseAlert
	CauseReport
	CauseOperator
	CauseNoOwner
	CauseIntrospection
	CauseSpoof
)

var causeNames = [...]string{
	"none", "rule", "malicious", "suspect", "hidden", "alert", "report",
	"operator", "no-owner", "introspection", "spoof",
}

// String returns the cause's name as it is shown to people.
func (c Cause) String() string {
	if int(c) < len(causeNames) {
		return causeNames[c]
	}
	return fmt.Sprintf("cause(%d)", uint32(c))
}

// MarshalText implements encoding.TextMarshaler.
func (c Cause) MarshalText() ([]byte, error) { return []byte(c.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (c *Cause) UnmarshalText(b []byte) error {
	for i, name := range causeNames {
		if name == string(b) {
			*c = Cause(i)
			return nil
		}
	}
	return fmt.Errorf("unknown cause %q", b)
}
