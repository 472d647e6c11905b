package loader

import "fmt"

// Owner is a process that holds sockets, by its owner id. The entry of id 0
// stands for "no owner known".
type Owner struct {
	Verdict, Cause uint32
	VM, PID        uint32
	StartTime      uint64 // nanoseconds since the guest's boot
	Comm           string // at most 15 bytes are kept
}

// SetOwner writes the entry of an owner id (1 to MaxOwners-1). It takes effect
// with the next packet of every flow that bears the id. The zero Owner frees the id.
func (d *Dataplane) SetOwner(id uint32, o Owner) error {
	if id == 0 {
		return fmt.Errorf("cannot write owner 0: it stands for no owner")
	}
	return d.owners.put(id, o)
}

// Owner returns the entry of an owner id.
func (d *Dataplane) Owner(id uint32) (Owner, error) { return d.owners.at(id) }

// Owners iterates over the owner ids in use.
func (d *Dataplane) Owners() *Entries[uint32, Owner] { return d.owners.used() }

// Rule is a policy rule, by its id.
type Rule struct {
	Verdict, Cause uint32
	Digest         uint64 // of the policy that the rule belongs to
	Name           string // at most 47 bytes are kept
}

// SetRule writes the entry of a rule id (1 to MaxRules-1). The zero Rule makes
// every flow that bears the id undecided at once.
func (d *Dataplane) SetRule(id uint32, r Rule) error {
	if id == 0 {
		return fmt.Errorf("cannot write rule 0: no flow may bear it")
	}
	return d.rules.put(id, r)
}

// Rules iterates over the rule ids in use.
func (d *Dataplane) Rules() *Entries[uint32, Rule] { return d.rules.used() }

// VerdictKey names a port of a VM.
type VerdictKey struct {
	VM    uint32
	Proto uint8
	Port  uint16
}

// VerdictEntry says who owns a port of a VM and what is known of that process.
type VerdictEntry struct {
	Verdict, Cause uint32
	Owner          uint32
	Observed       uint64 // when the evidence was
	Expires        uint64 // absolute; 0: never
}

// PutVerdict writes the verdict on a port of a VM.
func (d *Dataplane) PutVerdict(key VerdictKey, e VerdictEntry) error { return d.verdicts.put(key, e) }

// DeleteVerdict forgets it. Deleting what is not there is no error.
func (d *Dataplane) DeleteVerdict(key VerdictKey) error { return d.verdicts.delete(key) }

// Verdicts iterates over all entries, expired ones that nothing has swept included.
func (d *Dataplane) Verdicts() *Entries[VerdictKey, VerdictEntry] { return d.verdicts.all() }

func (o Owner) wire() wireOwner {
	w := wireOwner{
		Verdict:   wireVerdict(o.Verdict),
		Cause:     wireCause(o.Cause),
		Vm:        o.VM,
		Pid:       o.PID,
		StartTime: o.StartTime,
	}
	putCstr(w.Comm[:], o.Comm)
	return w
}

func ownerFromWire(w wireOwner) Owner {
	return Owner{
		Verdict:   uint32(w.Verdict),
		Cause:     uint32(w.Cause),
		VM:        w.Vm,
		PID:       w.Pid,
		StartTime: w.StartTime,
		Comm:      cstr(w.Comm[:]),
	}
}

func (r Rule) wire() wireRule {
	w := wireRule{Verdict: wireVerdict(r.Verdict), Cause: wireCause(r.Cause), Digest: r.Digest}
	putCstr(w.Name[:], r.Name)
	return w
}

func ruleFromWire(w wireRule) Rule {
	return Rule{Verdict: uint32(w.Verdict), Cause: uint32(w.Cause), Digest: w.Digest, Name: cstr(w.Name[:])}
}

func (k VerdictKey) wire() wireVerdictKey {
	return wireVerdictKey{Vm: k.VM, Port: k.Port, Proto: k.Proto}
}

func verdictKeyFromWire(w wireVerdictKey) VerdictKey {
	return VerdictKey{VM: w.Vm, Proto: w.Proto, Port: w.Port}
}

func (e VerdictEntry) wire() wireVerdictEntry {
	return wireVerdictEntry{
		Verdict:  wireVerdict(e.Verdict),
		Cause:    wireCause(e.Cause),
		Owner:    e.Owner,
		Observed: e.Observed,
		Expires:  e.Expires,
	}
}

func verdictEntryFromWire(w wireVerdictEntry) VerdictEntry {
	return VerdictEntry{
		Verdict:  uint32(w.Verdict),
		Cause:    uint32(w.Cause),
		Owner:    w.Owner,
		Observed: w.Observed,
		Expires:  w.Expires,
	}
}
