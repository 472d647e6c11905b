package verdict

import (
	"cmp"
	"slices"
)

// measures holds what was ordered about VMs and processes: the operator's
// measures, reports about VMs, and what VM rules ask for. A measure is the evidence that took it. It is
// not safe for concurrent use.
type measures struct {
	limit   int // of those at process scope: those at VM scope are as many as there are VMs
	byKey   map[measureKey]Evidence
	order   []measureKey // those at process scope, oldest first
	evicted uint64
}

// measureKey names what a measure is about; instance is zero at VM scope.
type measureKey struct {
	vm       string
	instance Instance
	kind     EvidenceKind
}

func newMeasures(limit int) *measures {
	return &measures{limit: limit, byKey: map[measureKey]Evidence{}}
}

func keyOf(ev *Evidence) measureKey {
	key := measureKey{vm: ev.VM, kind: ev.Kind}
	if ev.Process != nil {
		key.instance = ev.Process.Instance
	}
	return key
}

// take records the measure. A less strict one does not replace a stricter one:
// that takes a release.
func (m *measures) take(ev Evidence) {
	key := keyOf(&ev)
	old, known := m.byKey[key]
	if known && (old.Verdict > ev.Verdict || old.Verdict == ev.Verdict && !outlasts(ev.Expires, old.Expires)) {
		return
	}
	if !known && ev.Process != nil {
		if len(m.order) >= m.limit {
			delete(m.byKey, m.order[0])
			m.order = slices.Delete(m.order, 0, 1)
			m.evicted++
		}
		m.order = append(m.order, key)
	}
	m.byKey[key] = ev
}

// release lifts every measure about the VM itself, or about the instance.
func (m *measures) release(vm string, instance Instance) {
	for _, kind := range measureKinds {
		m.drop(measureKey{vm, instance, kind})
	}
}

func (m *measures) drop(key measureKey) {
	delete(m.byKey, key)
	if i := slices.Index(m.order, key); i >= 0 {
		m.order = slices.Delete(m.order, i, i+1)
	}
}

// measureKinds are the kinds of evidence that stand as measures.
var measureKinds = [...]EvidenceKind{EvidenceReport, EvidenceVMRule, EvidenceOperator}

// about returns the measures about the VM itself (zero instance) or the instance.
func (m *measures) about(vm string, instance Instance) (found []Evidence) {
	for _, kind := range measureKinds {
		if ev, ok := m.byKey[measureKey{vm, instance, kind}]; ok {
			found = append(found, ev)
		}
	}
	return found
}

// sorted returns all measures: those about VMs by name, then those about
// processes, oldest first.
func (m *measures) sorted() []Evidence {
	var all []Evidence
	for _, ev := range m.byKey {
		if ev.Process == nil {
			all = append(all, ev)
		}
	}
	slices.SortFunc(all, func(a, b Evidence) int {
		return cmp.Or(cmp.Compare(a.VM, b.VM), cmp.Compare(a.Kind, b.Kind))
	})
	for _, key := range m.order {
		ev := m.byKey[key]
		process := *ev.Process
		ev.Process = &process
		all = append(all, ev)
	}
	return all
}
