package verdict

import (
	"cmp"
	"slices"
	"strings"
)

// shelf holds the entries of both lists, indexed so that judging a process
// costs a few look-ups however long the lists are. It is not safe for
// concurrent use. Entries are never changed once they are in.
type shelf struct {
	limits     Limits
	byID       map[string]*ListEntry
	byInstance map[Instance][]*ListEntry
	byField    map[fieldKey][]*ListEntry
	learned    map[string]*learned // by VM
	nLearned   int
	nOwn       int // operator, import and report
	evicted    uint64
}

// fieldKey is the most telling field that an entry without instance gives.
type fieldKey struct{ field, value string }

// learned holds what was learned of one VM, oldest first.
type learned struct{ suspect, malicious []*ListEntry }

func (l *learned) len() int { return len(l.suspect) + len(l.malicious) }

func (l *learned) queue(k ListKind) *[]*ListEntry {
	if k == Suspect {
		return &l.suspect
	}
	return &l.malicious
}

// oldest is the next to go. Suspects go first: else a convicted process could
// wash its own conviction out with a flood of hidden children.
func (l *learned) oldest() *ListEntry {
	if len(l.suspect) > 0 {
		return l.suspect[0]
	}
	return l.malicious[0]
}

func newShelf(limits Limits) *shelf {
	return &shelf{
		limits:     limits,
		byID:       map[string]*ListEntry{},
		byInstance: map[Instance][]*ListEntry{},
		byField:    map[fieldKey][]*ListEntry{},
		learned:    map[string]*learned{},
	}
}

// matching returns all entries that match p, nil in the common case.
func (s *shelf) matching(p *Process) (found []*ListEntry) {
	found = append(found, s.byInstance[p.Instance]...)
	for _, key := range [...]fieldKey{
		{"fingerprint", strings.ToLower(p.Fingerprint)}, {"path", p.Path}, {"name", p.Name},
	} {
		for _, e := range s.byField[key] {
			if e.matches(p) {
				found = append(found, e)
			}
		}
	}
	return found
}

// put adds the normalized entry; what is there already stays as it is, unless the new
// one stands for longer.
func (s *shelf) put(e ListEntry) (added bool, err error) {
	if old := s.byID[e.ID]; old != nil {
		if !outlasts(e.Expires, old.Expires) {
			return false, nil
		}
		s.remove(e.ID)
		_, err = s.put(e)
		return false, err
	}
	switch e.Origin {
	case OriginLearned:
		s.makeRoom(e.VM)
		s.enqueue(&e)
	case OriginOperator, OriginImport, OriginReport:
		if s.nOwn >= s.limits.Entries {
			return false, ErrFull
		}
		s.nOwn++
	}
	s.byID[e.ID] = &e
	if e.Instance != nil {
		s.byInstance[*e.Instance] = append(s.byInstance[*e.Instance], &e)
	} else {
		s.byField[fieldOf(&e)] = append(s.byField[fieldOf(&e)], &e)
	}
	return true, nil
}

// remove takes the entry out, nil if there is none.
func (s *shelf) remove(id string) *ListEntry {
	e := s.byID[id]
	if e == nil {
		return nil
	}
	delete(s.byID, id)
	switch e.Origin {
	case OriginLearned:
		s.dequeue(e)
	case OriginOperator, OriginImport, OriginReport:
		s.nOwn--
	}
	if e.Instance != nil {
		removeFrom(s.byInstance, *e.Instance, e)
	} else {
		removeFrom(s.byField, fieldOf(e), e)
	}
	return e
}

// makeRoom evicts until one more entry may be learned of the VM: its own oldest
// if it has reached its share, else the oldest of the VM with the most, so that
// a flooder pays and not its neighbours.
func (s *shelf) makeRoom(vm string) {
	for s.learned[vm] != nil && s.learned[vm].len() >= s.limits.LearnedPerVM {
		s.evict(s.learned[vm])
	}
	for s.nLearned >= s.limits.Learned {
		var most *learned
		for _, l := range s.learned {
			if most == nil || l.len() > most.len() {
				most = l
			}
		}
		s.evict(most)
	}
}

func (s *shelf) evict(l *learned) {
	s.remove(l.oldest().ID)
	s.evicted++
}

func (s *shelf) enqueue(e *ListEntry) {
	l := s.learned[e.VM]
	if l == nil {
		l = &learned{}
		s.learned[e.VM] = l
	}
	queue := l.queue(e.List)
	*queue = append(*queue, e)
	s.nLearned++
}

func (s *shelf) dequeue(e *ListEntry) {
	l := s.learned[e.VM]
	queue := l.queue(e.List)
	i := slices.Index(*queue, e)
	*queue = slices.Delete(*queue, i, i+1)
	s.nLearned--
	if l.len() == 0 {
		delete(s.learned, e.VM)
	}
}

// sorted returns copies of the entries that keep accepts, by list, time and id.
func (s *shelf) sorted(keep func(*ListEntry) bool) []ListEntry {
	var entries []ListEntry
	for _, e := range s.byID {
		if keep(e) {
			entries = append(entries, e.clone())
		}
	}
	slices.SortFunc(entries, func(a, b ListEntry) int {
		return cmp.Or(cmp.Compare(a.List, b.List), a.Added.Compare(b.Added), cmp.Compare(a.ID, b.ID))
	})
	return entries
}

func fieldOf(e *ListEntry) fieldKey {
	switch {
	case e.Fingerprint != "":
		return fieldKey{"fingerprint", e.Fingerprint}
	case e.Path != "":
		return fieldKey{"path", e.Path}
	default:
		return fieldKey{"name", e.Name}
	}
}

func removeFrom[K comparable](index map[K][]*ListEntry, key K, e *ListEntry) {
	rest := slices.DeleteFunc(index[key], func(x *ListEntry) bool { return x == e })
	if len(rest) == 0 {
		delete(index, key)
		return
	}
	index[key] = rest
}

// hasLearned says whether anything was learned of the instance.
func (s *shelf) hasLearned(i Instance) bool {
	return slices.ContainsFunc(s.byInstance[i], func(e *ListEntry) bool { return e.Origin == OriginLearned })
}

// convicted says whether the instance itself is on the malicious list.
func (s *shelf) convicted(i Instance) bool {
	return slices.ContainsFunc(s.byInstance[i], func(e *ListEntry) bool { return e.List == Malicious })
}

// forget removes all that was learned of the instance.
func (s *shelf) forget(i Instance) {
	for _, e := range slices.Clone(s.byInstance[i]) {
		if e.Origin == OriginLearned {
			s.remove(e.ID)
		}
	}
}
