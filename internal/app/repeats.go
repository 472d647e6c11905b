package app

import (
	"sync"

	"github.com/vmgate/vmgate/pkg/snort"
	"github.com/vmgate/vmgate/pkg/verdict"
)

const (
	toldPerSecond   = 3    // alerts of one kind that are told each second; the rest is counted
	tracedPerSecond = 10   // questions to introspection about the alerts of one VM
	maxAlertKinds   = 4096 // that are told apart in a second
)

// alertKind is what makes alerts repeats of one another.
type alertKind struct {
	process  verdict.Instance // with the VM alone where it could not be traced
	gid, sid uint32
	action   snort.Action
}

// repeats keeps a storm of alerts from the log. A storm is one kind of alert, over
// and over, or many kinds; both are told briefly.
type repeats struct {
	mu     sync.Mutex
	kinds  map[alertKind]*repeated
	traces map[string]int // questions by VM
}

// repeated is an alert that came more often than it was told.
type repeated struct {
	alert   snort.Alert // the last of them
	vm      string
	process *verdict.Process
	n       int
}

// more is how many were not told.
func (r *repeated) more() int { return r.n - toldPerSecond }

// enough says whether an alert is only to be counted.
func (r *repeats) enough(a snort.Alert, vm string, p *verdict.Process) bool {
	kind := alertKind{process: verdict.Instance{VM: vm}, gid: a.GID, sid: a.SID, action: a.Action}
	if p != nil {
		kind.process = p.Instance
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	k := r.kinds[kind]
	if k == nil {
		if len(r.kinds) >= maxAlertKinds { // counted with the rest of them
			kind, vm, p = alertKind{}, "", nil
			k = r.kinds[kind]
		}
		if k == nil {
			k = &repeated{}
			if r.kinds == nil {
				r.kinds = map[alertKind]*repeated{}
			}
			r.kinds[kind] = k
		}
	}
	k.alert, k.vm, k.process = a, vm, p
	k.n++
	return k.n > toldPerSecond
}

// mayTrace says whether introspection may be asked about another alert of a VM.
// It takes milliseconds, and the other alerts wait.
func (r *repeats) mayTrace(vm string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.traces == nil {
		r.traces = map[string]int{}
	}
	r.traces[vm]++
	return r.traces[vm] <= tracedPerSecond
}

// next begins another second and returns what was counted and not told in the last.
func (r *repeats) next() (untold []*repeated) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, k := range r.kinds {
		if k.more() > 0 {
			untold = append(untold, k)
		}
	}
	r.kinds, r.traces = nil, nil
	return untold
}
