package verdict_test

import (
	"encoding/json"
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/vmgate/vmgate/pkg/verdict"
)

func TestState_HoldsWhatMustOutliveTheDaemon(t *testing.T) {
	b, p := newBook(), process(1)
	b.Observe(alert(p))
	b.Observe(operator(verdict.Check, "", &p))
	b.Observe(operator(verdict.Drop, "app2", nil))
	add(t, b, verdict.ListEntry{List: verdict.Suspect, Name: "curl", Origin: verdict.OriginImport, Reason: "CVE-2023-38545", Added: now})
	if err := b.ReplaceConfig([]verdict.ListEntry{{List: verdict.Suspect, Name: "from-file"}}); err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(b.State())
	if err != nil {
		t.Fatal(err)
	}
	var state verdict.State
	if err := json.Unmarshal(text, &state); err != nil {
		t.Fatal(err)
	}
	again, err := verdict.NewBookFrom(state, verdict.Knobs{}, verdict.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(b.State(), again.State()); diff != "" {
		t.Error(diff)
	}
	standing(t, again, p, verdict.Drop, verdict.CauseAlert)
	if vm, _ := again.JudgeVM("app2"); vm.Verdict != verdict.Drop {
		t.Errorf("VM: %+v", vm)
	}
	if len(again.Entries()) != 2 {
		t.Errorf("the configuration's entries belong to the file: %+v", again.Entries())
	}
}

func TestState_IsACopy(t *testing.T) {
	b, p := newBook(), process(1)
	b.Observe(alert(p))
	b.Observe(operator(verdict.Drop, "", &p))
	state := b.State()
	state.Entries[0].Instance.PID = 99
	state.Measures[0].Process.PID = 99
	b.Entries()[0].Instance.PID = 99
	standing(t, b, p, verdict.Drop, verdict.CauseAlert)
	if s := b.State(); s.Entries[0].Instance.PID != 1 || s.Measures[0].Process.PID != 1 {
		t.Errorf("%+v", s)
	}
}

func TestNewBookFrom_LeavesOutNonsenseAndSaysSo(t *testing.T) {
	p := process(1)
	good := verdict.ListEntry{List: verdict.Malicious, Origin: verdict.OriginLearned, Instance: &p.Instance, Cause: verdict.CauseAlert}
	state := verdict.State{
		Entries: []verdict.ListEntry{
			{List: verdict.Suspect, Origin: verdict.OriginOperator},              // would match all
			{List: verdict.Suspect, Origin: verdict.OriginLearned, Name: "sh"},   // a name is not convicted
			{List: verdict.Suspect, Origin: verdict.OriginConfig, Name: "stale"}, // the file's
			good,
		},
		Measures: []verdict.Evidence{
			{Kind: verdict.EvidenceRule, VM: "app1", Verdict: verdict.Drop},
			{Kind: verdict.EvidenceOperator, Verdict: verdict.Drop},
			{Kind: verdict.EvidenceOperator, VM: "app1", Verdict: verdict.Forward},
			{Kind: verdict.EvidenceReport, VM: "app1", Process: &p, Verdict: verdict.Drop},
			{Kind: verdict.EvidenceOperator, VM: "app9", Process: &p, Verdict: verdict.Drop},
			operator(verdict.Drop, "app2", nil),
		},
	}
	b, err := verdict.NewBookFrom(state, verdict.Knobs{}, verdict.Limits{})
	if joined, ok := err.(interface{ Unwrap() []error }); !ok || len(joined.Unwrap()) != 8 || !errors.Is(err, verdict.ErrInvalidEntry) {
		t.Errorf("errors: %v", err)
	}
	if s := b.State(); len(s.Entries) != 1 || len(s.Measures) != 1 {
		t.Errorf("%+v", s)
	}
	standing(t, b, p, verdict.Drop, verdict.CauseAlert)
}

func TestText_RoundTrips(t *testing.T) {
	for v := verdict.Undecided; v <= verdict.Drop; v++ {
		roundTrip(t, v)
	}
	for c := verdict.CauseNone; c <= verdict.CauseSpoof; c++ {
		roundTrip(t, c)
	}
	for s := verdict.OwnerUndeclared; s <= verdict.OwnerUnavailable; s++ {
		roundTrip(t, s)
	}
	for a := verdict.ActionDeny; a <= verdict.ActionCheck; a++ {
		roundTrip(t, a)
	}
	for _, text := range []string{`"Drop"`, `""`, `"verdict(4)"`, `3`} {
		var v verdict.Verdict
		if err := json.Unmarshal([]byte(text), &v); err == nil {
			t.Errorf("%s read as %s", text, v)
		}
	}
}

func roundTrip[T comparable](t *testing.T, value T) {
	t.Helper()
	text, err := json.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	var again T
	if err := json.Unmarshal(text, &again); err != nil || again != value {
		t.Errorf("%v became %v by way of %s: %v", value, again, text, err)
	}
}
