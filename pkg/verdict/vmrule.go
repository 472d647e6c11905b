package verdict

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
)

// VMSign is a kind of sign that a VM as a whole is not what it should be.
type VMSign string

// The signs that rules about VMs count.
const (
	SignConviction VMSign = "convictions" // a process of it was convicted
	SignSpoofing   VMSign = "spoofing"    // it sent from an address that is not its own
	SignFinding    VMSign = "findings"    // something in it is hidden or hooked
	SignReport     VMSign = "reports"     // somebody reported it, or a process of it
)

// cause is the cause of a verdict that rests on such signs.
func (s VMSign) cause() Cause {
	switch s {
	case SignConviction:
		return CauseAlert
	case SignSpoofing:
		return CauseSpoof
	case SignFinding:
		return CauseHidden
	}
	return CauseReport
}

// MaxVMRuleCount bounds VMRule.Count, and with it what a Tally keeps.
const MaxVMRuleCount = 1000

// VMRule makes a VM suspect (Then is Check) or malicious (Drop) when Count signs of
// a kind were seen of it within a time.
type VMRule struct {
	When   VMSign
	Count  int // 1 to MaxVMRuleCount
	Within time.Duration
	VM     string // empty: each VM by itself
	Then   Verdict
	Line   int // in the configuration file, 0 if unknown
}

// Tally counts the signs of each VM by the rules. It is safe for concurrent use.
type Tally struct {
	mu    sync.Mutex
	rules []VMRule
	signs map[tallyKey][]sighting // oldest first, at most MaxVMRuleCount
}

type tallyKey struct {
	vm   string
	sign VMSign
}

type sighting struct {
	what string
	at   time.Time
}

// NewTally returns a Tally without rules.
func NewTally() *Tally { return &Tally{signs: map[tallyKey][]sighting{}} }

// SetRules replaces the rules; what was counted stays.
func (t *Tally) SetRules(rules []VMRule) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.rules = rules
}

// Wants says whether a rule counts signs of the kind of the VM.
func (t *Tally) Wants(sign VMSign, vm string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.wants(sign, vm)
}

func (t *Tally) wants(sign VMSign, vm string) bool {
	return slices.ContainsFunc(t.rules, func(r VMRule) bool { return r.about(sign, vm) })
}

// Note counts a sign of a VM. The same thing (what, unless it is empty) counts once,
// by its last sighting. It returns the evidence of rules that are fulfilled, to be
// observed.
func (t *Tally) Note(sign VMSign, vm, what string, at time.Time) (fulfilled []Evidence) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !t.wants(sign, vm) {
		return nil
	}
	key := tallyKey{vm, sign}
	seen := slices.DeleteFunc(t.signs[key], func(s sighting) bool { return what != "" && s.what == what })
	if len(seen) >= MaxVMRuleCount {
		seen = slices.Delete(seen, 0, len(seen)-MaxVMRuleCount+1)
	}
	seen = append(seen, sighting{what, at})
	t.signs[key] = seen
	for i := range t.rules {
		r := &t.rules[i]
		if !r.about(sign, vm) || len(seen) < r.Count {
			continue
		}
		counted := seen[len(seen)-r.Count:]
		if at.Sub(counted[0].at) <= r.Within {
			fulfilled = append(fulfilled, r.evidence(vm, counted, at))
		}
	}
	return fulfilled
}

// Forget begins anew with a VM, as after its release.
func (t *Tally) Forget(vm string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for key := range t.signs {
		if key.vm == vm {
			delete(t.signs, key)
		}
	}
}

func (r *VMRule) about(sign VMSign, vm string) bool {
	return r.When == sign && (r.VM == "" || r.VM == vm)
}

func (r *VMRule) evidence(vm string, counted []sighting, at time.Time) Evidence {
	const named = 5
	var what []string
	for _, s := range counted {
		if s.what != "" && len(what) < named {
			what = append(what, s.what)
		}
	}
	detail := fmt.Sprintf("VM rule in line %d: %d %s within %v", r.Line, r.Count, r.When, r.Within)
	if len(what) > 0 {
		detail += ": " + strings.Join(what, ", ")
	}
	if r.Count > named && len(what) > 0 {
		detail += ", …"
	}
	return Evidence{Kind: EvidenceVMRule, Observed: at, VM: vm, Verdict: r.Then, Cause: r.When.cause(), Detail: detail}
}
