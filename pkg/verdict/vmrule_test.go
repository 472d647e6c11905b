package verdict_test

import (
	"strings"
	"testing"
	"time"

	"github.com/vmgate/vmgate/pkg/verdict"
)

func TestTally(t *testing.T) {
	tally := verdict.NewTally()
	at := time.Unix(1000, 0)
	if got := tally.Note(verdict.SignReport, "app1", "x", at); got != nil || tally.Wants(verdict.SignReport, "app1") {
		t.Error("it counts without rules")
	}
	tally.SetRules([]verdict.VMRule{
		{When: verdict.SignConviction, Count: 3, Within: time.Minute, Then: verdict.Drop, Line: 7},
		{When: verdict.SignSpoofing, Count: 2, Within: time.Minute, VM: "app2", Then: verdict.Check},
	})
	note := func(sign verdict.VMSign, vm, what string, after time.Duration) int {
		return len(tally.Note(sign, vm, what, at.Add(after)))
	}
	for i, step := range []struct {
		sign     verdict.VMSign
		vm, what string
		after    time.Duration
		want     int
	}{
		{verdict.SignConviction, "app1", "a", 0, 0},
		{verdict.SignConviction, "app1", "b", 10 * time.Second, 0},
		{verdict.SignConviction, "app2", "c", 10 * time.Second, 0}, // another VM's
		{verdict.SignConviction, "app1", "a", 20 * time.Second, 0}, // the same again
		{verdict.SignConviction, "app1", "c", 80 * time.Second, 0}, // b is too long ago
		{verdict.SignConviction, "app1", "d", 80 * time.Second, 1}, // a, c, d
		{verdict.SignSpoofing, "app1", "", 0, 0},
		{verdict.SignSpoofing, "app1", "", 0, 0}, // the rule is about app2
		{verdict.SignSpoofing, "app2", "", 0, 0},
		{verdict.SignSpoofing, "app2", "", 0, 1}, // nameless ones are each another
	} {
		if got := note(step.sign, step.vm, step.what, step.after); got != step.want {
			t.Errorf("step %d: %d rules are fulfilled, want %d", i, got, step.want)
		}
	}
	got := tally.Note(verdict.SignConviction, "app1", "e", at.Add(81*time.Second))
	if len(got) != 1 || got[0].Verdict != verdict.Drop || got[0].VM != "app1" || got[0].Process != nil ||
		!strings.Contains(got[0].Detail, "line 7") || !strings.Contains(got[0].Detail, "c, d, e") {
		t.Errorf("evidence %+v", got)
	}
	tally.Forget("app1")
	if note(verdict.SignConviction, "app1", "f", 82*time.Second) != 0 || note(verdict.SignSpoofing, "app2", "", time.Second) != 1 {
		t.Error("it forgets too little or too much")
	}
}

func TestTally_KeepsNoMoreThanARuleCanCount(t *testing.T) {
	tally := verdict.NewTally()
	tally.SetRules([]verdict.VMRule{{When: verdict.SignSpoofing, Count: verdict.MaxVMRuleCount, Within: time.Hour, Then: verdict.Check}})
	fulfilled := 0
	for i := range 3 * verdict.MaxVMRuleCount {
		fulfilled += len(tally.Note(verdict.SignSpoofing, "app1", "", time.Unix(int64(i), 0)))
	}
	if fulfilled != 2*verdict.MaxVMRuleCount+1 {
		t.Errorf("fulfilled %d times", fulfilled)
	}
}

// What a VM rule asks for is a measure like an operator's: it stands, is stored, and
// goes with a release.
func TestObserve_AVMRule(t *testing.T) {
	b := verdict.NewBook(verdict.Knobs{}, verdict.Limits{})
	ev := verdict.Evidence{Kind: verdict.EvidenceVMRule, VM: "app1", Verdict: verdict.Drop, Cause: verdict.CauseSpoof, Observed: time.Unix(5, 0), Detail: "why"}
	if effects := b.Observe(ev); len(effects) != 1 || effects[0].Scope != verdict.ScopeVM || effects[0].Verdict != verdict.Drop || effects[0].Cause != verdict.CauseSpoof {
		t.Fatalf("effects %+v", effects)
	}
	again, err := verdict.NewBookFrom(b.State(), verdict.Knobs{}, verdict.Limits{})
	if standing, _ := again.JudgeVM("app1"); err != nil || standing != (verdict.Standing{Verdict: verdict.Drop, Cause: verdict.CauseSpoof}) {
		t.Errorf("restored: %+v (%v)", standing, err)
	}
	release := verdict.Evidence{Kind: verdict.EvidenceOperator, VM: "app1", Verdict: verdict.Forward}
	if effects := again.Observe(release); len(effects) != 1 || effects[0].Verdict != verdict.Forward {
		t.Errorf("released: %+v", effects)
	}
}

func TestExpire(t *testing.T) {
	b := verdict.NewBook(verdict.Knobs{}, verdict.Limits{})
	at := time.Unix(1000, 0)
	p := verdict.Process{Instance: verdict.Instance{VM: "app1", PID: 7}, Name: "x", Fingerprint: "ab12"}
	report := func(v verdict.Verdict, until time.Duration, process *verdict.Process) {
		b.Observe(verdict.Evidence{Kind: verdict.EvidenceReport, VM: "app1", Process: process, Verdict: v, Observed: at, Expires: at.Add(until)})
	}
	stands := func(want verdict.Verdict) {
		t.Helper()
		if s, _ := b.JudgeProcess(p); s.Verdict != want {
			t.Errorf("the process is %s, want %s", s.Verdict, want)
		}
	}
	report(verdict.Drop, time.Minute, &p)
	report(verdict.Drop, time.Second, &p) // shorter: changes nothing
	report(verdict.Check, time.Minute, nil)
	id, err := b.Add(verdict.ListEntry{List: verdict.Suspect, Origin: verdict.OriginReport, Fingerprint: "ab12", Expires: at.Add(time.Hour)})
	if err != nil || id == "" {
		t.Fatal(err)
	}
	if n := b.Expire(at.Add(59 * time.Second)); n != 0 {
		t.Errorf("%d have gone too early", n)
	}
	stands(verdict.Drop)
	if n := b.Expire(at.Add(time.Minute)); n != 2 {
		t.Errorf("%d have gone, want the process's and the VM's", n)
	}
	stands(verdict.Check)
	if s, _ := b.JudgeVM("app1"); s.Verdict != verdict.Forward {
		t.Errorf("the VM is %s", s.Verdict)
	}
	if s, evidence := b.JudgeProcess(p); s.Cause != verdict.CauseReport {
		t.Errorf("the file's report has cause %s: %+v", s.Cause, evidence)
	}
	report(verdict.Drop, time.Minute, &p)
	report(verdict.Drop, 2*time.Minute, &p) // longer: stands for longer
	b.Expire(at.Add(time.Minute))
	stands(verdict.Drop)
	b.Observe(verdict.Evidence{Kind: verdict.EvidenceAlert, VM: "app1", Process: &p, Verdict: verdict.Drop, Observed: at})
	b.Expire(at.Add(time.Hour))
	stands(verdict.Drop) // an alert's conviction has no end
}

func TestClearAfter(t *testing.T) {
	for _, c := range []struct {
		after          verdict.ClearAfter
		packets, bytes uint64
		clean          time.Duration
		want           bool
	}{
		{verdict.ClearAfter{}, 1 << 60, 1 << 60, time.Hour, false},
		{verdict.ClearAfter{Packets: 10}, 9, 1000, time.Hour, false},
		{verdict.ClearAfter{Packets: 10}, 10, 0, 0, true},
		{verdict.ClearAfter{Packets: 10, Bytes: 100, Time: time.Second}, 10, 100, time.Second, true},
		{verdict.ClearAfter{Packets: 10, Bytes: 100, Time: time.Second}, 10, 99, time.Second, false},
		{verdict.ClearAfter{Packets: 10, Bytes: 100, Time: time.Second}, 10, 100, time.Second - 1, false},
	} {
		if got := c.after.Reached(c.packets, c.bytes, c.clean); got != c.want {
			t.Errorf("%+v after %d packets, %d bytes, %v: %t", c.after, c.packets, c.bytes, c.clean, got)
		}
	}
}
