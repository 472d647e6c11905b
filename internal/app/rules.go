package app

import (
	"errors"
	"fmt"
	"maps"
	"sync"

	"github.com/vmgate/vmgate/pkg/loader"
	"github.com/vmgate/vmgate/pkg/verdict"
)

// ruleIDs gives the rules of a policy their ids in the kernel's rules map. A
// policy that differs gets new ids, and the old ids are taken back: flows that
// bear them are undecided at once, without a walk over them.
type ruleIDs struct {
	dp *loader.Dataplane

	mu     sync.RWMutex
	digest uint64                // of the newest policy
	newest map[string]uint32     // its ids by rule name
	byID   map[uint32]ruleOfFlow // all ids in force
	stale  map[uint32]bool       // taken back, possibly borne by flows still
}

type ruleOfFlow struct {
	name    string
	verdict verdict.Verdict
}

// adoptRules takes over the ids that an earlier daemon gave.
func adoptRules(dp *loader.Dataplane) (*ruleIDs, error) {
	r := &ruleIDs{dp: dp, newest: map[string]uint32{}, byID: map[uint32]ruleOfFlow{}, stale: map[uint32]bool{}}
	rules := dp.Rules()
	for id, rule := range rules.All() {
		r.digest = rule.Digest
		r.newest[rule.Name] = id
		r.byID[id] = ruleOfFlow{rule.Name, verdict.Verdict(rule.Verdict)}
	}
	return r, rules.Err()
}

// prepare writes the rules of a policy to the kernel and returns their ids by
// name. Those of the policy before it stay in force until retire.
func (r *ruleIDs) prepare(policy *verdict.Policy) (map[string]uint32, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	digest := policy.Digest()
	if digest == r.digest && len(r.newest) == len(policy.Rules)+1 {
		return r.newest, nil
	}
	rules := []ruleOfFlow{{verdict.DefaultRule, policy.Default.Verdict()}}
	for i := range policy.Rules {
		rules = append(rules, ruleOfFlow{policy.Rules[i].Name, policy.Rules[i].Action.Verdict()})
	}
	ids := map[string]uint32{}
	next := uint32(1)
	for _, rule := range rules {
		id, ok := lowest(next, loader.MaxRules-1, func(id uint32) bool { return r.byID[id].name == "" && !r.stale[id] })
		if !ok {
			return nil, fmt.Errorf("cannot number %d rules: the ids of earlier policies are still borne by flows; try again in a minute", len(rules))
		}
		entry := loader.Rule{Verdict: uint32(rule.verdict), Cause: uint32(verdict.CauseRule), Digest: digest, Name: rule.name}
		if err := r.dp.SetRule(id, entry); err != nil {
			return nil, fmt.Errorf("cannot write rule %q: %w", rule.name, err)
		}
		ids[rule.name], next = id, id+1
	}
	for _, rule := range rules {
		r.byID[ids[rule.name]] = rule
	}
	r.digest, r.newest = digest, ids
	return ids, nil
}

// retire takes back all ids but the newest policy's.
func (r *ruleIDs) retire() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	var errs []error
	for id, rule := range r.byID {
		if r.newest[rule.name] == id {
			continue
		}
		errs = append(errs, r.dp.SetRule(id, loader.Rule{}))
		delete(r.byID, id)
		r.stale[id] = true
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("cannot take back the rules of the old policy: %w", err)
	}
	return nil
}

// get returns the name and the standing of the rule behind an id: "" and
// undecided for one that was taken back.
func (r *ruleIDs) get(id uint32) (string, verdict.Standing) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	rule, ok := r.byID[id]
	if !ok {
		return "", verdict.Standing{}
	}
	return rule.name, verdict.Standing{Verdict: rule.verdict, Cause: verdict.CauseRule}
}

// borne tells which ids flows still bear, after a walk over all of them; other
// stale ids may be given again.
func (r *ruleIDs) borne(ids map[uint32]bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	maps.DeleteFunc(r.stale, func(id uint32, _ bool) bool { return !ids[id] })
}
