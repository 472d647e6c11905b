package verdict_test

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/vmgate/vmgate/pkg/verdict"
)

var (
	now     = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	allow   = &verdict.Policy{Default: verdict.ActionAllow}
	deny    = &verdict.Policy{Default: verdict.ActionDeny}
	check   = &verdict.Policy{Default: verdict.ActionCheck}
	forward = verdict.Standing{Verdict: verdict.Forward}
)

func process(pid uint32, change ...func(*verdict.Process)) verdict.Process {
	p := verdict.Process{
		Instance: verdict.Instance{VM: "app1", PID: pid, Start: uint64(pid) * 1e9},
		Name:     "python3", Path: "/usr/bin/python3.11", Fingerprint: "ab12",
	}
	for _, c := range change {
		c(&p)
	}
	return p
}

func hidden(p *verdict.Process) { p.Hidden = true }

func known(processes ...verdict.Process) verdict.Owner {
	return verdict.Owner{State: verdict.OwnerKnown, Processes: processes, Observed: now}
}

func request(src, dst verdict.Owner) verdict.Request {
	return verdict.Request{Flow: flow(), SrcOwner: src, DstOwner: dst, Now: now}
}

func newBook() *verdict.Book { return verdict.NewBook(verdict.Knobs{}, verdict.Limits{}) }

func alert(p verdict.Process) verdict.Evidence {
	return verdict.Evidence{Kind: verdict.EvidenceAlert, Observed: now, Process: &p, Verdict: verdict.Drop, Detail: "SYN flood"}
}

func operator(v verdict.Verdict, vm string, p *verdict.Process) verdict.Evidence {
	return verdict.Evidence{Kind: verdict.EvidenceOperator, Observed: now, VM: vm, Process: p, Verdict: v, Detail: "by root"}
}

func add(t *testing.T, b *verdict.Book, e verdict.ListEntry) string {
	t.Helper()
	id, err := b.Add(e)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func TestDecide_StrictestOfItsPartsWins(t *testing.T) {
	none := verdict.Owner{State: verdict.OwnerNone, Observed: now}
	failing := verdict.Owner{State: verdict.OwnerUnavailable, Detail: "deadline", Observed: now}
	p, q := process(1), process(2)
	for _, test := range []struct {
		name     string
		policy   *verdict.Policy
		know     func(*testing.T, *verdict.Book)
		src, dst verdict.Owner
		want     verdict.Verdict
		cause    verdict.Cause
	}{
		{"nothing known, allowed", allow, nil, verdict.Owner{}, verdict.Owner{}, verdict.Forward, verdict.CauseRule},
		{"nothing known, denied", deny, nil, verdict.Owner{}, verdict.Owner{}, verdict.Drop, verdict.CauseRule},
		{"nothing known, checked", check, nil, verdict.Owner{}, verdict.Owner{}, verdict.Check, verdict.CauseRule},
		{"innocent owners", allow, nil, known(p), known(q), verdict.Forward, verdict.CauseRule},
		{"hidden sender", allow, nil, known(process(1, hidden)), verdict.Owner{}, verdict.Check, verdict.CauseHidden},
		{"hidden receiver", allow, nil, verdict.Owner{}, known(process(1, hidden)), verdict.Check, verdict.CauseHidden},
		{"hidden, but denied", deny, nil, known(process(1, hidden)), verdict.Owner{}, verdict.Drop, verdict.CauseRule},
		{"hidden, and checked: hidden says more", check, nil, known(process(1, hidden)), verdict.Owner{}, verdict.Check, verdict.CauseHidden},
		{"convicted", allow, func(t *testing.T, b *verdict.Book) { b.Observe(alert(p)) },
			known(p), verdict.Owner{}, verdict.Drop, verdict.CauseAlert},
		{"convicted at the other end", allow, func(t *testing.T, b *verdict.Book) { b.Observe(alert(p)) },
			verdict.Owner{}, known(p), verdict.Drop, verdict.CauseAlert},
		{"convicted, and denied: alert says more", deny, func(t *testing.T, b *verdict.Book) { b.Observe(alert(p)) },
			known(p), verdict.Owner{}, verdict.Drop, verdict.CauseAlert},
		{"nobody has the port now, a convicted process had it", allow, func(t *testing.T, b *verdict.Book) { b.Observe(alert(p)) },
			verdict.Owner{State: verdict.OwnerNone, Past: []verdict.Process{q, p}}, verdict.Owner{}, verdict.Drop, verdict.CauseAlert},
		{"nobody has the port now, an innocent process had it", allow, nil,
			verdict.Owner{State: verdict.OwnerNone, Past: []verdict.Process{q}}, verdict.Owner{}, verdict.Check, verdict.CauseNoOwner},
		{"one of a shared socket's owners is convicted", allow, func(t *testing.T, b *verdict.Book) { b.Observe(alert(p)) },
			known(q, p), verdict.Owner{}, verdict.Drop, verdict.CauseAlert},
		{"the same pid with another start is another", allow, func(t *testing.T, b *verdict.Book) { b.Observe(alert(p)) },
			known(process(1, func(p *verdict.Process) { p.Start++ })), verdict.Owner{}, verdict.Forward, verdict.CauseRule},
		{"the same program in the same VM is another", allow, func(t *testing.T, b *verdict.Book) { b.Observe(alert(p)) },
			known(q), verdict.Owner{}, verdict.Forward, verdict.CauseRule},
		{"the same pid and start in another VM is another", allow, func(t *testing.T, b *verdict.Book) { b.Observe(alert(p)) },
			known(process(1, func(p *verdict.Process) { p.VM = "app2" })), verdict.Owner{}, verdict.Forward, verdict.CauseRule},
		{"suspect by path", allow, func(t *testing.T, b *verdict.Book) {
			add(t, b, verdict.ListEntry{List: verdict.Suspect, Path: p.Path})
		}, known(p), verdict.Owner{}, verdict.Check, verdict.CauseSuspect},
		{"malicious by fingerprint", allow, func(t *testing.T, b *verdict.Book) {
			add(t, b, verdict.ListEntry{List: verdict.Malicious, Fingerprint: "AB12"})
		}, known(p), verdict.Owner{}, verdict.Drop, verdict.CauseMalicious},
		{"an entry for another VM", allow, func(t *testing.T, b *verdict.Book) {
			add(t, b, verdict.ListEntry{List: verdict.Malicious, Name: "python3", VM: "app2"})
		}, known(p), verdict.Owner{}, verdict.Forward, verdict.CauseRule},
		{"all given fields must match", allow, func(t *testing.T, b *verdict.Book) {
			add(t, b, verdict.ListEntry{List: verdict.Malicious, Path: p.Path, Name: "perl"})
		}, known(p), verdict.Owner{}, verdict.Forward, verdict.CauseRule},
		{"names are exact", allow, func(t *testing.T, b *verdict.Book) {
			add(t, b, verdict.ListEntry{List: verdict.Malicious, Name: "python"})
		}, known(p), verdict.Owner{}, verdict.Forward, verdict.CauseRule},
		{"on both lists", allow, func(t *testing.T, b *verdict.Book) {
			add(t, b, verdict.ListEntry{List: verdict.Malicious, Name: "python3"})
			add(t, b, verdict.ListEntry{List: verdict.Suspect, Name: "python3"})
		}, known(p), verdict.Owner{}, verdict.Drop, verdict.CauseMalicious},
		{"process isolated", allow, func(t *testing.T, b *verdict.Book) { b.Observe(operator(verdict.Drop, "", &p)) },
			known(p), verdict.Owner{}, verdict.Drop, verdict.CauseOperator},
		{"another process isolated", allow, func(t *testing.T, b *verdict.Book) { b.Observe(operator(verdict.Drop, "", &p)) },
			known(q), verdict.Owner{}, verdict.Forward, verdict.CauseRule},
		{"VM inspected", allow, func(t *testing.T, b *verdict.Book) { b.Observe(operator(verdict.Check, "app1", nil)) },
			known(p), verdict.Owner{}, verdict.Check, verdict.CauseOperator},
		{"VM isolated at the receiving end", allow, func(t *testing.T, b *verdict.Book) { b.Observe(operator(verdict.Drop, "web1", nil)) },
			known(p), verdict.Owner{}, verdict.Drop, verdict.CauseOperator},
		{"no owner", allow, nil, none, verdict.Owner{}, verdict.Check, verdict.CauseNoOwner},
		{"known, but of nobody", allow, nil, known(), verdict.Owner{}, verdict.Check, verdict.CauseNoOwner},
		{"introspection fails", allow, nil, verdict.Owner{}, failing, verdict.Check, verdict.CauseIntrospection},
		{"an owner state that does not exist", allow, nil, verdict.Owner{State: 77}, verdict.Owner{}, verdict.Check, verdict.CauseIntrospection},
		{"both ends fail", allow, nil, none, failing, verdict.Check, verdict.CauseIntrospection},
		{"no owner, an innocent candidate", allow, nil, candidates(p), verdict.Owner{}, verdict.Check, verdict.CauseNoOwner},
		{"no owner, an innocent candidate: forward", allow, func(t *testing.T, b *verdict.Book) { b.SetKnobs(verdict.Knobs{NoOwner: verdict.Forward}) },
			candidates(p), verdict.Owner{}, verdict.Forward, verdict.CauseRule},
		{"a suspect candidate: forward", allow, func(t *testing.T, b *verdict.Book) {
			b.SetKnobs(verdict.Knobs{NoOwner: verdict.Forward})
			add(t, b, verdict.ListEntry{List: verdict.Suspect, Name: "python3"})
		}, candidates(p), verdict.Owner{}, verdict.Check, verdict.CauseNoOwner},
		{"a hidden candidate: forward", allow, func(t *testing.T, b *verdict.Book) { b.SetKnobs(verdict.Knobs{NoOwner: verdict.Forward}) },
			verdict.Owner{}, candidates(process(1, hidden)), verdict.Check, verdict.CauseNoOwner},
		{"the only candidate is malicious", allow, func(t *testing.T, b *verdict.Book) { b.Observe(alert(p)) },
			candidates(p), verdict.Owner{}, verdict.Drop, verdict.CauseNoOwner},
		{"one of two candidates is malicious", allow, func(t *testing.T, b *verdict.Book) { b.Observe(alert(p)) },
			candidates(q, p), verdict.Owner{}, verdict.Check, verdict.CauseNoOwner},
		{"a malicious candidate, and one that nobody can name", allow, func(t *testing.T, b *verdict.Book) { b.Observe(alert(p)) },
			verdict.Owner{State: verdict.OwnerNone, Candidates: []verdict.Process{p}, Untraced: 1}, verdict.Owner{}, verdict.Check, verdict.CauseNoOwner},
		{"a malicious candidate, and one who had the port before", allow, func(t *testing.T, b *verdict.Book) { b.Observe(alert(p)) },
			verdict.Owner{State: verdict.OwnerNone, Candidates: []verdict.Process{p}, Past: []verdict.Process{q}}, verdict.Owner{}, verdict.Check, verdict.CauseNoOwner},
		{"an owner of the port, but a malicious candidate", allow, func(t *testing.T, b *verdict.Book) { b.Observe(alert(p)) },
			verdict.Owner{State: verdict.OwnerKnown, Processes: []verdict.Process{q}, Candidates: []verdict.Process{p}}, verdict.Owner{}, verdict.Check, verdict.CauseNoOwner},
		{"no owner: drop", allow, func(t *testing.T, b *verdict.Book) { b.SetKnobs(verdict.Knobs{NoOwner: verdict.Drop}) },
			none, verdict.Owner{}, verdict.Drop, verdict.CauseNoOwner},
		{"no owner: forward", allow, func(t *testing.T, b *verdict.Book) { b.SetKnobs(verdict.Knobs{NoOwner: verdict.Forward}) },
			none, verdict.Owner{}, verdict.Forward, verdict.CauseRule},
		{"introspection fails: drop", allow, func(t *testing.T, b *verdict.Book) {
			b.SetKnobs(verdict.Knobs{Introspection: verdict.Drop})
		}, failing, verdict.Owner{}, verdict.Drop, verdict.CauseIntrospection},
	} {
		t.Run(test.name, func(t *testing.T) {
			b := newBook()
			if test.know != nil {
				test.know(t, b)
			}
			d := b.Decide(test.policy, request(test.src, test.dst))
			if d.Verdict != test.want || d.Cause != test.cause {
				t.Errorf("%s because of %s, want %s because of %s", d.Verdict, d.Cause, test.want, test.cause)
			}
			parts := verdict.Strictest(d.RuleVerdict, d.SrcProcess.Verdict, d.DstProcess.Verdict, d.SrcVM.Verdict, d.DstVM.Verdict, d.FlowOnly.Verdict)
			if parts != d.Verdict {
				t.Errorf("the parts make %s: %+v", parts, d)
			}
		})
	}
}

func candidates(list ...verdict.Process) verdict.Owner {
	return verdict.Owner{State: verdict.OwnerNone, Candidates: list, Observed: now}
}

func TestDecide_NamesCandidatesWithoutConvictingThem(t *testing.T) {
	b := newBook()
	p := process(1)
	b.Observe(alert(p))
	d := b.Decide(allow, request(candidates(p), verdict.Owner{}))
	if d.SrcProcess.Verdict != verdict.Undecided || d.FlowOnly != (verdict.Standing{Verdict: verdict.Drop, Cause: verdict.CauseNoOwner}) || len(d.Effects) != 0 {
		t.Errorf("%+v", d)
	}
	i := slices.IndexFunc(d.Evidence, func(e verdict.Evidence) bool { return e.Kind == verdict.EvidenceCandidate })
	if i < 0 || d.Evidence[i].Process.Instance != p.Instance || d.Evidence[i].Verdict != verdict.Forward || !strings.HasPrefix(d.Evidence[i].Detail, "could have sent it: python3[1]") {
		t.Errorf("evidence %+v", d.Evidence)
	}
	hiding := process(2, hidden)
	if d := b.Decide(allow, request(candidates(hiding), verdict.Owner{})); len(d.Effects) != 1 || d.Effects[0].Process.Instance != hiding.Instance {
		t.Errorf("a hidden candidate is no suspect then: %+v", d.Effects)
	}
}

// TestDecide_PartsAreOfTheirOwnScope: later changes of one scope must not be
// stuck in another.
func TestDecide_PartsAreOfTheirOwnScope(t *testing.T) {
	b := newBook()
	p := process(1)
	b.Observe(alert(p))
	b.Observe(operator(verdict.Check, "web1", nil))
	d := b.Decide(allow, request(known(p), verdict.Owner{State: verdict.OwnerNone}))
	want := verdict.Decision{
		Verdict: verdict.Drop, Cause: verdict.CauseAlert, Rule: "default", RuleVerdict: verdict.Forward,
		SrcProcess: verdict.Standing{Verdict: verdict.Drop, Cause: verdict.CauseAlert},
		DstProcess: verdict.Standing{},
		SrcVM:      forward,
		DstVM:      verdict.Standing{Verdict: verdict.Check, Cause: verdict.CauseOperator},
		FlowOnly:   verdict.Standing{Verdict: verdict.Check, Cause: verdict.CauseNoOwner},
	}
	d.Evidence = nil
	if diff := cmp.Diff(want, d); diff != "" {
		t.Error(diff)
	}
}

func TestDecide_NamesTheRule(t *testing.T) {
	policy := &verdict.Policy{Rules: []verdict.Rule{{Name: "web", Line: 12, Action: verdict.ActionCheck, Alert: true}}}
	d := newBook().Decide(policy, request(verdict.Owner{}, verdict.Owner{}))
	if d.Rule != "web" || d.Line != 12 || !d.Alert || d.RuleVerdict != verdict.Check {
		t.Errorf("%+v", d)
	}
	if got, want := d.Evidence[0].Detail, "rule web (line 12): any -> any: check"; got != want {
		t.Errorf("evidence %q, want %q", got, want)
	}
}

func TestDecide_PutsTheHiddenOnTheSuspectListOnce(t *testing.T) {
	b := newBook()
	p := process(7, hidden)
	d := b.Decide(allow, request(known(p), verdict.Owner{}))
	if len(d.Effects) != 1 {
		t.Fatalf("effects: %+v", d.Effects)
	}
	e := d.Effects[0]
	if e.Scope != verdict.ScopeProcess || e.VM != "app1" || e.Process.Instance != p.Instance || e.Verdict != verdict.Check || e.Cause != verdict.CauseHidden {
		t.Errorf("effect: %+v", e)
	}
	entries := b.Entries()
	if len(entries) != 1 || entries[0].List != verdict.Suspect || entries[0].Origin != verdict.OriginLearned ||
		*entries[0].Instance != p.Instance || !entries[0].Added.Equal(now) {
		t.Errorf("entries: %+v", entries)
	}
	if again := b.Decide(allow, request(known(p), verdict.Owner{})); again.Effects != nil || again.Verdict != verdict.Check {
		t.Errorf("again: %+v", again)
	}
	// Once found out, showing itself again does not help.
	p.Hidden = false
	if d := b.Decide(allow, request(known(p), verdict.Owner{})); d.Verdict != verdict.Check || d.Cause != verdict.CauseHidden {
		t.Errorf("no longer hidden: %s because of %s", d.Verdict, d.Cause)
	}
}

func TestPreview_LearnsNothing(t *testing.T) {
	b := newBook()
	req := request(known(process(7, hidden)), verdict.Owner{})
	preview := b.Preview(allow, req)
	if preview.Effects != nil || b.Entries() != nil {
		t.Errorf("effects %+v, entries %+v", preview.Effects, b.Entries())
	}
	d := b.Decide(allow, req)
	d.Effects = nil
	if diff := cmp.Diff(d, preview, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
		t.Errorf("the preview was wrong:\n%s", diff)
	}
}

func TestDecide_EvidenceEscapesWhatTheGuestNamed(t *testing.T) {
	p := process(1, func(p *verdict.Process) { p.Name, p.Path = "\x1b[2Jok", "/tmp/\n\x07" })
	d := newBook().Decide(allow, request(known(p), verdict.Owner{}))
	for _, ev := range d.Evidence {
		if strings.ContainsAny(ev.Detail, "\x1b\n\x07") {
			t.Errorf("%q", ev.Detail)
		}
	}
}

func BenchmarkDecide(b *testing.B) {
	book := newBook()
	for i := range 10_000 {
		if _, err := book.Add(verdict.ListEntry{List: verdict.Suspect, Origin: verdict.OriginImport, Path: "/opt/" + strings.Repeat("x", i%50) + string(rune('a'+i%26)) + time.Duration(i).String()}); err != nil {
			b.Fatal(err)
		}
	}
	policy := &verdict.Policy{}
	for range 100 {
		policy.Rules = append(policy.Rules, verdict.Rule{Name: "no", To: verdict.Selector{VM: "other"}, Proto: tcp})
	}
	policy.Rules = append(policy.Rules, verdict.Rule{Name: "yes", Action: verdict.ActionAllow})
	req := request(known(process(1)), known(process(2)))
	b.ReportAllocs()
	for b.Loop() {
		if d := book.Decide(policy, req); d.Verdict != verdict.Forward {
			b.Fatal(d.Verdict)
		}
	}
}
