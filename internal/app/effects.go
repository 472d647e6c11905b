package app

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/vmgate/vmgate/pkg/loader"
	"github.com/vmgate/vmgate/pkg/verdict"
)

// effects brings changes of standing verdicts into the kernel's maps. All
// sources of evidence end here: decisions, alerts, sweeps, lists and operators.
type effects struct {
	dp      *loader.Dataplane
	book    *verdict.Book
	rules   *ruleIDs
	owners  *owners
	clear   *clearances
	tally   *verdict.Tally
	journal *journal
	log     *slog.Logger
	now     func() *state
	save    func() // has what must outlive the daemon stored soon
	sweep   func(vm string)
}

// observe puts evidence before the book, and what follows into force.
func (e *effects) observe(evidence verdict.Evidence) error {
	return e.apply(e.book.Observe(evidence))
}

// accuse observes evidence against a process. The clearance of its flows ends with it,
// also where nothing else changes: it was given on what was known before.
func (e *effects) accuse(evidence verdict.Evidence) error {
	id, _, known := e.owners.standingOf(evidence.Process.Instance)
	if !known {
		return e.observe(evidence)
	}
	err := e.clear.revoke(borneBy(id), evidence.Detail)
	return errors.Join(err, e.observe(evidence))
}

// borneBy says of which flows an end is an owner's.
func borneBy(id uint32) func(loader.Flow) bool {
	return func(f loader.Flow) bool { return id != 0 && (f.Dir[0].Owner == id || f.Dir[1].Owner == id) }
}

// apply writes the verdicts that have changed.
func (e *effects) apply(changed []verdict.Effect) error {
	if len(changed) == 0 {
		return nil
	}
	var errs []error
	for _, effect := range changed {
		var err error
		switch effect.Scope {
		case verdict.ScopeProcess:
			err = e.process(effect)
		case verdict.ScopeVM:
			err = e.vm(effect.VM, verdict.Standing{Verdict: effect.Verdict, Cause: effect.Cause})
		default:
			err = fmt.Errorf("cannot apply a verdict at scope %q", effect.Scope)
		}
		errs = append(errs, err)
		e.journal.effect(effect)
		if effect.Scope == verdict.ScopeProcess && effect.Verdict == verdict.Drop {
			errs = append(errs, e.sign(verdict.SignConviction, effect.VM, effect.Process.String()))
		}
	}
	e.save()
	return errors.Join(errs...)
}

// process makes the verdict on a process stand over all its flows by one write,
// then over the ports that it is known to hold. The ports that it holds beside
// them are found by a sweep.
func (e *effects) process(effect verdict.Effect) error {
	if effect.Process == nil {
		return fmt.Errorf("cannot apply a verdict on a process of %s: it is not named", effect.VM)
	}
	var id uint32
	known, _, _ := e.owners.standingOf(effect.Process.Instance)
	err := e.clear.during(borneBy(known), "the verdict on "+effect.Process.String()+" has changed", func() (err error) {
		id, err = e.owners.set(*effect.Process, verdict.Standing{Verdict: effect.Verdict, Cause: effect.Cause})
		return err
	})
	if err != nil {
		return err
	}
	ports := e.dp.Verdicts()
	for key, entry := range ports.All() {
		if entry.Owner != id {
			continue
		}
		entry.Verdict, entry.Cause = uint32(effect.Verdict), uint32(effect.Cause)
		if err := e.dp.PutVerdict(key, entry); err != nil {
			return err
		}
	}
	e.sweep(effect.VM)
	return ports.Err()
}

// vm makes the verdict on a VM stand over all its frames.
func (e *effects) vm(name string, standing verdict.Standing) error {
	n := e.now().inv.byName[name]
	if n == nil {
		return fmt.Errorf("cannot apply a verdict on VM %s: it is not in the inventory", name)
	}
	v := max(standing.Verdict, verdict.Forward)
	if v == verdict.Forward {
		return e.dp.SetVMVerdict(n.id, uint32(v), uint32(standing.Cause))
	}
	about := func(f loader.Flow) bool { return f.Dir[0].VM == n.id || f.Dir[1].VM == n.id }
	return e.clear.during(about, "the verdict on "+name+" has changed", func() error {
		return e.dp.SetVMVerdict(n.id, uint32(v), uint32(standing.Cause))
	})
}

// notePort records that a process holds a port of a VM, with the verdict that
// stands on it, until the attribution is too old to be trusted.
func (e *effects) notePort(vm uint32, proto uint8, port uint16, owner uint32, observed time.Time, age time.Duration) error {
	_, standing, ok := e.owners.get(owner)
	if !ok {
		return fmt.Errorf("cannot note port %d of VM %d: owner %d is not known", port, vm, owner)
	}
	seen := loader.Now() - uint64(max(0, time.Since(observed)))
	return e.dp.PutVerdict(loader.VerdictKey{VM: vm, Proto: proto, Port: port}, loader.VerdictEntry{
		Verdict: uint32(standing.Verdict), Cause: uint32(standing.Cause), Owner: owner,
		Observed: seen, Expires: seen + uint64(age),
	})
}

// rejudge asks the book again for every process and VM in the maps, after its
// lists have changed as a whole.
func (e *effects) rejudge() error {
	errs := []error{e.clear.revoke(everyFlow, "the lists or the configuration have changed")}
	for _, p := range e.owners.all() {
		_, before, _ := e.owners.standingOf(p.Instance)
		standing, evidence := e.book.JudgeProcess(p)
		if max(standing.Verdict, verdict.Forward) == before.Verdict {
			continue
		}
		effect := verdict.Effect{Scope: verdict.ScopeProcess, VM: p.VM, Process: &p, Verdict: standing.Verdict, Cause: standing.Cause, Evidence: evidence}
		errs = append(errs, e.process(effect))
		e.journal.effect(effect)
	}
	for _, n := range e.now().inv.byID {
		standing, _ := e.book.JudgeVM(n.name)
		errs = append(errs, e.vm(n.name, standing))
	}
	e.save()
	return errors.Join(errs...)
}

// strictest is the verdict that the kernel would reach on a flow now, and why.
func (e *effects) strictest(flow loader.Flow) (verdict.Standing, error) {
	result := verdict.Standing{Verdict: verdict.Verdict(flow.Verdict), Cause: verdict.Cause(flow.Cause)}
	undecided := result.Verdict == verdict.Undecided
	also := func(s verdict.Standing) {
		undecided = undecided || s.Verdict == verdict.Undecided
		if s.Verdict > result.Verdict {
			result = s
		}
	}
	_, byRule := e.rules.get(flow.Rule)
	also(byRule)
	for _, dir := range flow.Dir {
		vm, err := e.dp.VM(dir.VM)
		if err != nil {
			return verdict.Standing{}, err
		}
		also(verdict.Standing{Verdict: verdict.Verdict(vm.Verdict), Cause: verdict.Cause(vm.Cause)})
		if dir.Owner != 0 {
			_, standing, _ := e.owners.get(dir.Owner)
			also(standing)
		}
	}
	if undecided && result.Verdict != verdict.Drop {
		return verdict.Standing{}, nil
	}
	if result.Verdict == verdict.Check && flow.Cleared {
		return verdict.Standing{Verdict: verdict.Forward, Cause: result.Cause}, nil
	}
	return result, nil
}
