package verdict

import (
	"errors"
	"fmt"
)

// State is what must outlive the daemon: everything in a Book but the entries of
// the configuration and the knobs. It is plain data, made for JSON.
type State struct {
	Entries  []ListEntry `json:"entries"`  // learned, operator and import
	Measures []Evidence  `json:"measures"` // by the operator, and reports about VMs
}

// State returns a copy of what must outlive the daemon. Books that know the same
// give the same State.
func (b *Book) State() State {
	b.mu.RLock()
	defer b.mu.RUnlock()
	return State{
		Entries:  b.lists.sorted(func(e *ListEntry) bool { return e.Origin != OriginConfig }),
		Measures: b.measures.sorted(),
	}
}

// NewBookFrom returns a Book that knows what the State says. The state comes
// from a disk: what in it makes no sense is left out, and the error says what;
// the Book is never nil.
func NewBookFrom(state State, knobs Knobs, limits Limits) (*Book, error) {
	b := NewBook(knobs, limits)
	var errs []error
	for i, e := range state.Entries {
		if err := b.restoreEntry(e); err != nil {
			errs = append(errs, fmt.Errorf("cannot restore list entry %d (%s): %w", i, e.ID, err))
		}
	}
	for i, ev := range state.Measures {
		if err := b.restoreMeasure(ev); err != nil {
			errs = append(errs, fmt.Errorf("cannot restore measure %d: %w", i, err))
		}
	}
	return b, errors.Join(errs...)
}

func (b *Book) restoreEntry(e ListEntry) error {
	if e.Origin != OriginLearned && e.Origin != OriginOperator && e.Origin != OriginImport && e.Origin != OriginReport {
		return fmt.Errorf("%w: origin %q", ErrInvalidEntry, e.Origin)
	}
	if e.Origin == OriginLearned && e.Instance == nil {
		return fmt.Errorf("%w: learned of no instance", ErrInvalidEntry)
	}
	if err := e.Validate(); err != nil {
		return err
	}
	_, err := b.lists.put(e.normalized())
	return err
}

func (b *Book) restoreMeasure(ev Evidence) error {
	cause := map[EvidenceKind]Cause{EvidenceOperator: CauseOperator, EvidenceReport: CauseReport}[ev.Kind]
	if ev.Kind == EvidenceVMRule && ev.Process == nil {
		cause = ev.Cause
	}
	switch {
	case cause == CauseNone || int(cause) >= len(causeNames):
		return fmt.Errorf("evidence of kind %q is no measure", ev.Kind)
	case ev.VM == "" || ev.Process != nil && ev.Process.VM != ev.VM:
		return errors.New("it is about no VM")
	case ev.Verdict != Check && ev.Verdict != Drop:
		return fmt.Errorf("verdict %s is no measure", ev.Verdict)
	case ev.Kind == EvidenceReport && ev.Process != nil:
		return errors.New("a report about a process is a list entry")
	}
	ev.Cause = cause
	b.measures.take(ev)
	return nil
}
