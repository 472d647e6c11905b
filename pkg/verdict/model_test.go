package verdict_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/vmgate/vmgate/pkg/verdict"
)

// model is a Book without indexes, limits or locks: what is known is a list of
// facts, and judging is going over all of them.
type model struct {
	facts  []fact
	config []verdict.ListEntry
}

type fact struct {
	key     string // facts with the same key are one
	about   func(verdict.Process) bool
	vm      string // about the VM as a whole
	verdict verdict.Verdict
	learned bool // of one instance, lifted by release
}

func (m *model) take(f fact) {
	for i := range m.facts {
		if m.facts[i].key == f.key {
			m.facts[i].verdict = max(m.facts[i].verdict, f.verdict)
			return
		}
	}
	m.facts = append(m.facts, f)
}

func (m *model) drop(which func(fact) bool) { m.facts = slices.DeleteFunc(m.facts, which) }

func (m *model) judge(p verdict.Process) verdict.Verdict {
	v := verdict.Forward
	for _, f := range m.facts {
		if f.about != nil && f.about(p) {
			v = max(v, f.verdict)
		}
	}
	for _, e := range m.config {
		if matches(e, p) {
			v = max(v, e.List.Verdict())
		}
	}
	if p.Hidden {
		v = max(v, verdict.Check)
	}
	return v
}

func (m *model) judgeVM(vm string) verdict.Verdict {
	v := verdict.Forward
	for _, f := range m.facts {
		if f.vm == vm {
			v = max(v, f.verdict)
		}
	}
	return v
}

func matches(e verdict.ListEntry, p verdict.Process) bool {
	return (e.Name == "" || e.Name == p.Name) && (e.Path == "" || e.Path == p.Path) &&
		(e.Fingerprint == "" || e.Fingerprint == p.Fingerprint) && (e.VM == "" || e.VM == p.VM)
}

func isInstance(i verdict.Instance) func(verdict.Process) bool {
	return func(p verdict.Process) bool { return p.Instance == i }
}

// A small world, so that things meet.
var (
	worldVMs   = []string{"app1", "web1"}
	worldNames = []string{"", "python3", "sh"}
	worldPaths = []string{"", "/bin/a", "/bin/b"}
	worldPrint = []string{"", "aa", "bb"}
	strict     = []verdict.Verdict{verdict.Check, verdict.Drop}
)

func world() (all []verdict.Process) {
	for _, vm := range worldVMs {
		for pid := range uint32(4) {
			p := verdict.Process{
				Instance: verdict.Instance{VM: vm, PID: pid / 2, Start: uint64(pid)}, // pids are reused
				Name:     worldNames[1+pid%2], Path: worldPaths[1+pid/2], Fingerprint: worldPrint[pid%3], Hidden: pid == 3,
			}
			all = append(all, p)
		}
	}
	return all
}

func drawEntry(t *rapid.T) verdict.ListEntry {
	e := verdict.ListEntry{
		List:        rapid.SampledFrom([]verdict.ListKind{verdict.Suspect, verdict.Malicious}).Draw(t, "list"),
		Name:        rapid.SampledFrom(worldNames).Draw(t, "name"),
		Path:        rapid.SampledFrom(worldPaths).Draw(t, "path"),
		Fingerprint: rapid.SampledFrom(worldPrint).Draw(t, "fingerprint"),
		VM:          rapid.SampledFrom(append(worldVMs, "")).Draw(t, "vm"),
	}
	if e.Name+e.Path+e.Fingerprint == "" {
		e.Name = "sh"
	}
	return e
}

// drawEvidence draws evidence that is no release.
func drawEvidence(t *rapid.T) verdict.Evidence {
	ev := verdict.Evidence{
		Kind: rapid.SampledFrom([]verdict.EvidenceKind{
			verdict.EvidenceAlert, verdict.EvidenceReport, verdict.EvidenceHidden, verdict.EvidenceOperator,
		}).Draw(t, "kind"),
		Verdict: rapid.SampledFrom(strict).Draw(t, "verdict"), Observed: now,
	}
	if (ev.Kind == verdict.EvidenceReport || ev.Kind == verdict.EvidenceOperator) && rapid.Bool().Draw(t, "at VM scope") {
		ev.VM = rapid.SampledFrom(worldVMs).Draw(t, "vm")
		return ev
	}
	p := rapid.SampledFrom(world()).Draw(t, "process")
	ev.Process = &p
	return ev
}

func (m *model) observe(ev verdict.Evidence) {
	f := fact{verdict: ev.Verdict, learned: true}
	switch {
	case ev.Process == nil:
		f.key, f.vm = fmt.Sprint(ev.Kind, ev.VM), ev.VM
	case ev.Kind == verdict.EvidenceHidden:
		f.verdict = verdict.Check
		fallthrough
	default:
		f.key, f.about = fmt.Sprint(ev.Kind, ev.Process.Instance), isInstance(ev.Process.Instance)
	}
	m.take(f)
}

// TestBook_AgreesWithTheModel drives a Book and the model with the same random
// steps; a Book restored from the state as JSON must agree as well.
func TestBook_AgreesWithTheModel(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b, m := newBook(), &model{}
		t.Repeat(map[string]func(*rapid.T){
			"observe": func(t *rapid.T) {
				ev := drawEvidence(t)
				before := judgeEvidence(b, ev)
				effects := b.Observe(ev)
				m.observe(ev)
				checkEffects(t, b, ev, before, effects)
			},
			"release process": func(t *rapid.T) {
				p := rapid.SampledFrom(world()).Draw(t, "process")
				ev := verdict.Evidence{Kind: verdict.EvidenceOperator, Process: &p, Verdict: verdict.Forward}
				before := judgeEvidence(b, ev)
				checkEffects(t, b, ev, before, b.Observe(ev))
				m.drop(func(f fact) bool { return f.learned && f.about != nil && f.about(p) })
			},
			"release VM": func(t *rapid.T) {
				vm := rapid.SampledFrom(worldVMs).Draw(t, "vm")
				b.Observe(operator(verdict.Forward, vm, nil))
				m.drop(func(f fact) bool { return f.vm == vm })
			},
			"add": func(t *rapid.T) {
				e := drawEntry(t)
				id, err := b.Add(e)
				if err != nil {
					t.Fatal(err)
				}
				m.take(fact{key: id, verdict: e.List.Verdict(), about: func(p verdict.Process) bool { return matches(e, p) }})
			},
			"remove": func(t *rapid.T) {
				own := slices.DeleteFunc(b.Entries(), func(e verdict.ListEntry) bool { return e.Origin != verdict.OriginOperator })
				if len(own) == 0 {
					t.Skip("nothing to remove")
				}
				id := rapid.SampledFrom(own).Draw(t, "entry").ID
				if _, err := b.Remove(id); err != nil {
					t.Fatal(err)
				}
				m.drop(func(f fact) bool { return f.key == id })
			},
			"configure": func(t *rapid.T) {
				m.config = rapid.SliceOfN(rapid.Custom(drawEntry), 0, 3).Draw(t, "entries")
				if err := b.ReplaceConfig(m.config); err != nil {
					t.Fatal(err)
				}
			},
			"": func(t *rapid.T) {
				checkAgainst(t, b, m)
				checkAgainst(t, restored(t, b, m), m)
			},
		})
	})
}

func judgeEvidence(b *verdict.Book, ev verdict.Evidence) verdict.Standing {
	s, _ := b.JudgeVM(ev.VM)
	if ev.Process != nil {
		s, _ = b.JudgeProcess(*ev.Process)
	}
	return s
}

// checkEffects: what changed is said, and what is said is how things stand.
func checkEffects(t *rapid.T, b *verdict.Book, ev verdict.Evidence, before verdict.Standing, effects []verdict.Effect) {
	after := judgeEvidence(b, ev)
	if after != before && len(effects) != 1 {
		t.Fatalf("%+v to %+v without a word: %+v", before, after, effects)
	}
	for _, e := range effects {
		if e.Verdict != after.Verdict || e.Cause != after.Cause {
			t.Fatalf("effect %+v, but it stands at %+v", e, after)
		}
	}
}

func checkAgainst(t *rapid.T, b *verdict.Book, m *model) {
	for _, p := range world() {
		if got, evidence := b.JudgeProcess(p); got.Verdict != m.judge(p) {
			t.Fatalf("%+v: %s, want %s; evidence %+v", p, got.Verdict, m.judge(p), evidence)
		}
	}
	for _, vm := range worldVMs {
		if got, _ := b.JudgeVM(vm); got.Verdict != m.judgeVM(vm) {
			t.Fatalf("VM %s: %s, want %s", vm, got.Verdict, m.judgeVM(vm))
		}
	}
}

// restored returns a Book made of b's state, as it comes back from JSON, and of
// the same configuration.
func restored(t *rapid.T, b *verdict.Book, m *model) *verdict.Book {
	state := b.State()
	text, err := json.Marshal(state)
	if err != nil {
		t.Fatal(err)
	}
	var read verdict.State
	if err := json.Unmarshal(text, &read); err != nil {
		t.Fatal(err)
	}
	again, err := verdict.NewBookFrom(read, verdict.Knobs{}, verdict.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(state, again.State()); diff != "" {
		t.Fatalf("the state changed on its way:\n%s", diff)
	}
	if err := again.ReplaceConfig(m.config); err != nil {
		t.Fatal(err)
	}
	return again
}

// TestDecide_EvidenceNeverSoftens: whatever is learned, short of a release, no
// decision becomes less strict.
func TestDecide_EvidenceNeverSoftens(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b := newBook()
		processes := rapid.SliceOfN(rapid.SampledFrom(world()), 0, 3)
		req := request(known(processes.Draw(t, "src")...), known(processes.Draw(t, "dst")...))
		policy := rapid.SampledFrom([]*verdict.Policy{allow, check, deny}).Draw(t, "policy")
		last := b.Decide(policy, req).Verdict
		for range rapid.IntRange(1, 20).Draw(t, "steps") {
			if rapid.Bool().Draw(t, "list") {
				if _, err := b.Add(drawEntry(t)); err != nil {
					t.Fatal(err)
				}
			} else {
				b.Observe(drawEvidence(t))
			}
			v := b.Decide(policy, req).Verdict
			if v < last || v == verdict.Undecided {
				t.Fatalf("%s after %s", v, last)
			}
			last = v
		}
	})
}
