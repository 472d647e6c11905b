package verdict

import (
	"errors"
	"fmt"
	"sync"
	"time"
)

// Knobs are the verdicts of conditions that say nothing about a process by
// themselves. Undecided stands for Check.
type Knobs struct {
	NoOwner       Verdict // memory was read and no process holds the port
	Introspection Verdict // memory is declared but could not be read in time
}

func (k Knobs) withDefaults() Knobs {
	if k.NoOwner == Undecided {
		k.NoOwner = Check
	}
	if k.Introspection == Undecided {
		k.Introspection = Check
	}
	return k
}

// Limits bound what a Book holds. A zero field stands for its default.
type Limits struct {
	LearnedPerVM int // learned entries of one VM; default 512. The oldest go first, suspects before malicious
	Learned      int // learned entries in total; default 16384. The VM with the most gives up its oldest
	Entries      int // operator's and imported entries; default 65536. More are refused
	Measures     int // measures at process scope; default 4096. The oldest go first
}

func (l Limits) withDefaults() Limits {
	for field, def := range map[*int]int{
		&l.LearnedPerVM: 512, &l.Learned: 16384, &l.Entries: 65536, &l.Measures: 4096,
	} {
		if *field <= 0 {
			*field = def
		}
	}
	return l
}

// Book holds everything that is known of processes and VMs: the lists, the
// measures, the convictions. Every decision and every judgement is made from
// it. It is safe for concurrent use; judging takes a read lock and a few
// look-ups.
//
// A change of the lists (Add, Remove, ReplaceConfig) may change the standing of
// processes that the caller has written to the kernel: the caller judges those
// that it knows anew with JudgeProcess. What Observe and Decide change they say
// themselves, as effects.
type Book struct {
	mu       sync.RWMutex
	knobs    Knobs
	lists    *shelf
	measures *measures
}

// NewBook returns a Book that knows nothing.
func NewBook(knobs Knobs, limits Limits) *Book {
	limits = limits.withDefaults()
	return &Book{
		knobs:    knobs.withDefaults(),
		lists:    newShelf(limits),
		measures: newMeasures(limits.Measures),
	}
}

// SetKnobs replaces the knobs, for decisions from now on.
func (b *Book) SetKnobs(knobs Knobs) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.knobs = knobs.withDefaults()
}

// Entries returns copies of all list entries, ordered by list, time and id.
func (b *Book) Entries() []ListEntry {
	b.mu.RLock()
	defer b.mu.RUnlock()
	return b.lists.sorted(func(*ListEntry) bool { return true })
}

// Evicted counts the learned entries and measures that had to go because a
// limit was reached.
func (b *Book) Evicted() uint64 {
	b.mu.RLock()
	defer b.mu.RUnlock()
	return b.lists.evicted + b.measures.evicted
}

// Add puts an operator's (the default), an imported or a reported entry on its list
// and returns its id. An entry that is there already stays as it is, unless the new
// one stands for longer. Errors wrap
// ErrInvalidEntry or ErrFull.
func (b *Book) Add(entry ListEntry) (id string, err error) {
	if entry.Origin == "" {
		entry.Origin = OriginOperator
	}
	if entry.Origin != OriginOperator && entry.Origin != OriginImport && entry.Origin != OriginReport {
		return "", fmt.Errorf("%w: entries of origin %q cannot be added by hand", ErrInvalidEntry, entry.Origin)
	}
	if err := entry.Validate(); err != nil {
		return "", err
	}
	entry.Cause = CauseNone
	if entry.Origin == OriginReport {
		entry.Cause = CauseReport
	}
	entry = entry.normalized()

	b.mu.Lock()
	defer b.mu.Unlock()
	if _, err := b.lists.put(entry); err != nil {
		return "", err
	}
	return entry.ID, nil
}

// Remove takes an entry off its list and returns it. Errors wrap ErrNoEntry or
// ErrConfigured.
func (b *Book) Remove(id string) (ListEntry, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	entry := b.lists.byID[id]
	switch {
	case entry == nil:
		return ListEntry{}, fmt.Errorf("cannot remove %q: %w", id, ErrNoEntry)
	case entry.Origin == OriginConfig:
		return ListEntry{}, fmt.Errorf("cannot remove %q: %w", id, ErrConfigured)
	}
	return b.lists.remove(id).clone(), nil
}

// ReplaceConfig makes entries the ones of origin OriginConfig, instead of those
// before. If one is invalid nothing changes.
func (b *Book) ReplaceConfig(entries []ListEntry) error {
	var errs []error
	replacement := make(map[string]ListEntry, len(entries))
	for _, e := range entries {
		e.Origin, e.Cause, e.Expires = OriginConfig, CauseNone, time.Time{}
		if err := e.Validate(); err != nil {
			errs = append(errs, err)
			continue
		}
		e = e.normalized()
		replacement[e.ID] = e
	}
	if errs != nil {
		return errors.Join(errs...)
	}

	b.mu.Lock()
	defer b.mu.Unlock()
	for id, old := range b.lists.byID {
		if old.Origin != OriginConfig {
			continue
		}
		b.lists.remove(id)
		if e, stays := replacement[id]; stays {
			e.Added = old.Added
			replacement[id] = e
		}
	}
	for _, e := range replacement {
		if _, err := b.lists.put(e); err != nil {
			panic("verdict: entries of the configuration have no limit: " + err.Error())
		}
	}
	return nil
}
