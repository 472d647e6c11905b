package verdict_test

import (
	"errors"
	"sync"
	"testing"

	"github.com/vmgate/vmgate/pkg/verdict"
)

// standing checks how a process stands.
func standing(t *testing.T, b *verdict.Book, p verdict.Process, want verdict.Verdict, cause verdict.Cause) {
	t.Helper()
	if got, evidence := b.JudgeProcess(p); got.Verdict != want || got.Cause != cause {
		t.Errorf("%s stands at %s because of %s, want %s because of %s; evidence %+v", &p, got.Verdict, got.Cause, want, cause, evidence)
	}
}

// effect checks that there is one effect, and what it says.
func effect(t *testing.T, effects []verdict.Effect, scope verdict.ScopeKind, want verdict.Verdict, cause verdict.Cause) {
	t.Helper()
	if len(effects) != 1 {
		t.Fatalf("%d effects, want 1: %+v", len(effects), effects)
	}
	if e := effects[0]; e.Scope != scope || e.Verdict != want || e.Cause != cause || e.VM != "app1" || (e.Process != nil) != (scope == verdict.ScopeProcess) {
		t.Errorf("effect %+v, want %s at scope %s because of %s", e, want, scope, cause)
	}
}

func none(t *testing.T, effects []verdict.Effect) {
	t.Helper()
	if effects != nil {
		t.Errorf("effects of nothing new: %+v", effects)
	}
}

func TestObserve_AlertConvictsTheInstanceOnce(t *testing.T) {
	b, p := newBook(), process(1)
	effect(t, b.Observe(alert(p)), verdict.ScopeProcess, verdict.Drop, verdict.CauseAlert)
	none(t, b.Observe(alert(p)))
	standing(t, b, p, verdict.Drop, verdict.CauseAlert)
	standing(t, b, process(2), verdict.Forward, verdict.CauseNone)
	if e := b.Entries(); len(e) != 1 || e[0].List != verdict.Malicious || e[0].Reason != "SYN flood" || e[0].Path != p.Path {
		t.Errorf("%+v", e)
	}
}

func TestObserve_AlertThatPassedMakesASuspect(t *testing.T) {
	b, p := newBook(), process(1)
	ev := alert(p)
	ev.Verdict = verdict.Check
	effect(t, b.Observe(ev), verdict.ScopeProcess, verdict.Check, verdict.CauseAlert)
	effect(t, b.Observe(alert(p)), verdict.ScopeProcess, verdict.Drop, verdict.CauseAlert)
	none(t, b.Observe(ev))
}

func TestObserve_TheConvictedIsNoSuspectMore(t *testing.T) {
	b, p := newBook(), process(1, hidden)
	b.Observe(alert(p))
	none(t, b.Observe(verdict.Evidence{Kind: verdict.EvidenceHidden, Process: &p, Observed: now}))
	if len(b.Entries()) != 1 {
		t.Errorf("%+v", b.Entries())
	}
}

func TestObserve_HiddenThenConvicted(t *testing.T) {
	b, p := newBook(), process(1, hidden)
	ev := verdict.Evidence{Kind: verdict.EvidenceHidden, Process: &p, Observed: now}
	effect(t, b.Observe(ev), verdict.ScopeProcess, verdict.Check, verdict.CauseHidden)
	none(t, b.Observe(ev))
	effect(t, b.Observe(alert(p)), verdict.ScopeProcess, verdict.Drop, verdict.CauseAlert)
	standing(t, b, p, verdict.Drop, verdict.CauseAlert)
}

func TestObserve_TakesTheVMFromTheEvidence(t *testing.T) {
	b, p := newBook(), process(1)
	unnamed := p
	unnamed.VM = ""
	ev := alert(unnamed)
	ev.VM = "app1"
	effect(t, b.Observe(ev), verdict.ScopeProcess, verdict.Drop, verdict.CauseAlert)
	standing(t, b, p, verdict.Drop, verdict.CauseAlert)
}

func TestObserve_WhatSaysNothingChangesNothing(t *testing.T) {
	b, p := newBook(), process(1)
	for name, ev := range map[string]verdict.Evidence{
		"nothing":               {},
		"alert of nobody":       {Kind: verdict.EvidenceAlert, VM: "app1", Verdict: verdict.Drop},
		"hidden nobody":         {Kind: verdict.EvidenceHidden, VM: "app1", Verdict: verdict.Check},
		"alert to forward":      {Kind: verdict.EvidenceAlert, Process: &p, Verdict: verdict.Forward},
		"report to forward":     {Kind: verdict.EvidenceReport, Process: &p, Verdict: verdict.Forward},
		"report to forward, VM": {Kind: verdict.EvidenceReport, VM: "app1", Verdict: verdict.Forward},
		"undecided operator":    {Kind: verdict.EvidenceOperator, Process: &p},
		"a verdict too far":     {Kind: verdict.EvidenceOperator, Process: &p, Verdict: 9},
		"owner":                 {Kind: verdict.EvidenceOwner, Process: &p, Verdict: verdict.Drop},
		"no VM":                 {Kind: verdict.EvidenceOperator, Verdict: verdict.Drop},
		"process in no VM":      {Kind: verdict.EvidenceAlert, Process: &verdict.Process{Name: "x"}, Verdict: verdict.Drop},
	} {
		if effects := b.Observe(ev); effects != nil {
			t.Errorf("%s: %+v", name, effects)
		}
	}
	if s := b.State(); s.Entries != nil || s.Measures != nil {
		t.Errorf("%+v", s)
	}
}

func TestObserve_MeasuresStandUntilReleased(t *testing.T) {
	p := process(1)
	for _, target := range []struct {
		scope verdict.ScopeKind
		p     *verdict.Process
	}{{verdict.ScopeVM, nil}, {verdict.ScopeProcess, &p}} {
		b := newBook()
		op := func(v verdict.Verdict) []verdict.Effect { return b.Observe(operator(v, "app1", target.p)) }
		effect(t, op(verdict.Check), target.scope, verdict.Check, verdict.CauseOperator)
		effect(t, op(verdict.Drop), target.scope, verdict.Drop, verdict.CauseOperator)
		none(t, op(verdict.Check)) // an isolation is not softened by an inspection
		effect(t, op(verdict.Forward), target.scope, verdict.Forward, verdict.CauseNone)
		none(t, op(verdict.Forward))
	}
}

func TestObserve_ReleaseOfAProcessLiftsItsConviction(t *testing.T) {
	b, p := newBook(), process(1)
	b.Observe(verdict.Evidence{Kind: verdict.EvidenceHidden, Process: &p, Observed: now})
	b.Observe(alert(p))
	b.Observe(operator(verdict.Drop, "", &p))
	effect(t, b.Observe(operator(verdict.Forward, "", &p)), verdict.ScopeProcess, verdict.Forward, verdict.CauseNone)
	if e := b.Entries(); e != nil {
		t.Errorf("left: %+v", e)
	}
}

func TestObserve_ReleaseOfAProcessLeavesTheListsAlone(t *testing.T) {
	b, p := newBook(), process(1)
	add(t, b, verdict.ListEntry{List: verdict.Suspect, Name: p.Name})
	b.Observe(alert(p))
	effect(t, b.Observe(operator(verdict.Forward, "", &p)), verdict.ScopeProcess, verdict.Check, verdict.CauseSuspect)
}

func TestObserve_ReleaseOfTheVMLeavesConvictions(t *testing.T) {
	b, p := newBook(), process(1)
	b.Observe(alert(p))
	b.Observe(operator(verdict.Drop, "", &p))
	b.Observe(operator(verdict.Drop, "app1", nil))
	effect(t, b.Observe(operator(verdict.Forward, "app1", nil)), verdict.ScopeVM, verdict.Forward, verdict.CauseNone)
	standing(t, b, p, verdict.Drop, verdict.CauseAlert)
}

func TestObserve_ReportsStandAtBothScopes(t *testing.T) {
	b, p := newBook(), process(1)
	report := verdict.Evidence{Kind: verdict.EvidenceReport, VM: "app1", Verdict: verdict.Drop, Observed: now}
	effect(t, b.Observe(report), verdict.ScopeVM, verdict.Drop, verdict.CauseReport)
	standing(t, b, p, verdict.Forward, verdict.CauseNone)
	report.Process = &p
	effect(t, b.Observe(report), verdict.ScopeProcess, verdict.Drop, verdict.CauseReport)
	effect(t, b.Observe(operator(verdict.Forward, "app1", nil)), verdict.ScopeVM, verdict.Forward, verdict.CauseNone)
}

func TestJudgeVM_WhatIsNoVMIsInnocent(t *testing.T) {
	if s, evidence := newBook().JudgeVM(""); s != forward || evidence != nil {
		t.Errorf("%+v %+v", s, evidence)
	}
}

func TestAdd_RefusesWhatCannotMatchOrMatchesAll(t *testing.T) {
	b := newBook()
	for _, e := range []verdict.ListEntry{
		{List: verdict.Suspect},
		{List: verdict.Suspect, VM: "app1"},
		{List: "grey", Name: "x"},
		{List: verdict.Suspect, Name: "sixteen-letters!"},
		{List: verdict.Suspect, Path: "bin/x"},
		{List: verdict.Suspect, Fingerprint: "xyz"},
		{List: verdict.Suspect, Name: "x", Origin: verdict.OriginConfig},
		{List: verdict.Suspect, Name: "x", Origin: verdict.OriginLearned},
	} {
		if id, err := b.Add(e); !errors.Is(err, verdict.ErrInvalidEntry) {
			t.Errorf("%+v: id %q, error %v", e, id, err)
		}
	}
	if b.Entries() != nil {
		t.Error("something was added")
	}
}

func TestAdd_TwiceIsOnce(t *testing.T) {
	b := newBook()
	first := add(t, b, verdict.ListEntry{List: verdict.Suspect, Fingerprint: "AB", Reason: "one"})
	second := add(t, b, verdict.ListEntry{List: verdict.Suspect, Fingerprint: "ab", Reason: "two"})
	other := add(t, b, verdict.ListEntry{List: verdict.Malicious, Fingerprint: "ab"})
	if first != second || other == first || len(b.Entries()) != 2 {
		t.Errorf("ids %s %s %s, entries %+v", first, second, other, b.Entries())
	}
}

func TestRemove(t *testing.T) {
	b := newBook()
	id := add(t, b, verdict.ListEntry{List: verdict.Suspect, Name: "python3"})
	if e, err := b.Remove(id); err != nil || e.Name != "python3" {
		t.Errorf("%+v, %v", e, err)
	}
	standing(t, b, process(1), verdict.Forward, verdict.CauseNone)
	if _, err := b.Remove(id); !errors.Is(err, verdict.ErrNoEntry) {
		t.Errorf("twice: %v", err)
	}
	if err := b.ReplaceConfig([]verdict.ListEntry{{List: verdict.Suspect, Name: "python3"}}); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Remove(b.Entries()[0].ID); !errors.Is(err, verdict.ErrConfigured) {
		t.Errorf("configured: %v", err)
	}
}

func TestReplaceConfig_ReplacesItsOwnOnly(t *testing.T) {
	b, p := newBook(), process(1)
	add(t, b, verdict.ListEntry{List: verdict.Suspect, Name: "python3"})
	config := []verdict.ListEntry{{List: verdict.Malicious, Name: "python3", Reason: "old", Added: now}}
	if err := b.ReplaceConfig(config); err != nil {
		t.Fatal(err)
	}
	standing(t, b, p, verdict.Drop, verdict.CauseMalicious)

	config[0].Reason, config[0].Added = "new", now.Add(1)
	if err := b.ReplaceConfig(config); err != nil {
		t.Fatal(err)
	}
	if e := b.Entries()[0]; e.Reason != "new" || !e.Added.Equal(now) {
		t.Errorf("kept entry: %+v", e)
	}

	invalid := []verdict.ListEntry{{List: verdict.Suspect, Name: "ok"}, {List: verdict.Suspect}}
	if err := b.ReplaceConfig(invalid); !errors.Is(err, verdict.ErrInvalidEntry) {
		t.Errorf("invalid: %v", err)
	}
	standing(t, b, p, verdict.Drop, verdict.CauseMalicious) // nothing has changed

	if err := b.ReplaceConfig(nil); err != nil {
		t.Fatal(err)
	}
	standing(t, b, p, verdict.Check, verdict.CauseSuspect)
}

func TestLimits_OldestSuspectsOfTheVMGoFirst(t *testing.T) {
	b := verdict.NewBook(verdict.Knobs{}, verdict.Limits{LearnedPerVM: 3})
	convicted := process(1)
	b.Observe(alert(convicted))
	for pid := uint32(2); pid <= 10; pid++ { // its hidden children
		p := process(pid)
		b.Observe(verdict.Evidence{Kind: verdict.EvidenceHidden, Process: &p, Observed: now})
	}
	standing(t, b, convicted, verdict.Drop, verdict.CauseAlert)
	standing(t, b, process(8), verdict.Forward, verdict.CauseNone)
	standing(t, b, process(9), verdict.Check, verdict.CauseHidden)
	standing(t, b, process(10), verdict.Check, verdict.CauseHidden)
	if len(b.Entries()) != 3 || b.Evicted() != 7 {
		t.Errorf("%d entries, %d evicted", len(b.Entries()), b.Evicted())
	}
}

func TestLimits_TheVMWithTheMostPays(t *testing.T) {
	b := verdict.NewBook(verdict.Knobs{}, verdict.Limits{Learned: 4})
	quiet := process(1, func(p *verdict.Process) { p.VM = "quiet" })
	b.Observe(alert(quiet))
	for pid := uint32(1); pid <= 9; pid++ {
		b.Observe(alert(process(pid)))
	}
	standing(t, b, quiet, verdict.Drop, verdict.CauseAlert)
	standing(t, b, process(6), verdict.Forward, verdict.CauseNone)
	standing(t, b, process(7), verdict.Drop, verdict.CauseAlert)
	if len(b.Entries()) != 4 || b.Evicted() != 6 {
		t.Errorf("%d entries, %d evicted", len(b.Entries()), b.Evicted())
	}
}

func TestLimits_OperatorsEntriesAreRefusedNotEvicted(t *testing.T) {
	b := verdict.NewBook(verdict.Knobs{}, verdict.Limits{Entries: 1})
	id := add(t, b, verdict.ListEntry{List: verdict.Suspect, Name: "a"})
	if _, err := b.Add(verdict.ListEntry{List: verdict.Suspect, Name: "b"}); !errors.Is(err, verdict.ErrFull) {
		t.Errorf("second: %v", err)
	}
	if _, err := b.Remove(id); err != nil {
		t.Fatal(err)
	}
	add(t, b, verdict.ListEntry{List: verdict.Suspect, Name: "b"})
}

func TestLimits_MeasuresOfProcesses(t *testing.T) {
	b := verdict.NewBook(verdict.Knobs{}, verdict.Limits{Measures: 2})
	b.Observe(operator(verdict.Drop, "app1", nil)) // not counted: there are as many as VMs
	for pid := uint32(1); pid <= 3; pid++ {
		p := process(pid)
		b.Observe(operator(verdict.Drop, "", &p))
	}
	standing(t, b, process(1), verdict.Forward, verdict.CauseNone)
	standing(t, b, process(2), verdict.Drop, verdict.CauseOperator)
	standing(t, b, process(3), verdict.Drop, verdict.CauseOperator)
	if s, _ := b.JudgeVM("app1"); s.Verdict != verdict.Drop || b.Evicted() != 1 {
		t.Errorf("VM %s, evicted %d", s.Verdict, b.Evicted())
	}
}

func TestBook_ConcurrentUse(t *testing.T) {
	b := newBook()
	var wait sync.WaitGroup
	for worker := range uint32(4) {
		wait.Go(func() {
			for i := range uint32(200) {
				p := process(i%20, hidden)
				b.Decide(allow, request(known(p), known(process(worker))))
				b.Observe(alert(p))
				b.JudgeVM("app1")
				b.Observe(operator(verdict.Forward, "", &p))
				if id, err := b.Add(verdict.ListEntry{List: verdict.Suspect, Name: "x"}); err == nil && i%2 == 0 {
					_, _ = b.Remove(id) // another may have been faster
				}
				if err := b.ReplaceConfig([]verdict.ListEntry{{List: verdict.Suspect, Name: "y"}}); err != nil {
					t.Error(err)
				}
				b.Entries()
				b.State()
			}
		})
	}
	wait.Wait()
}
