package verdict

import (
	"maps"
	"slices"
	"time"
)

// Expire takes out what was to stand until now at the latest, and says how much that
// was. The caller judges anew whom it knows.
func (b *Book) Expire(now time.Time) (n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.lists.expire(now) + b.measures.expire(now)
}

func over(expires, now time.Time) bool { return !expires.IsZero() && !now.Before(expires) }

func (s *shelf) expire(now time.Time) (n int) {
	for _, id := range slices.Collect(maps.Keys(s.byID)) {
		if over(s.byID[id].Expires, now) {
			s.remove(id)
			n++
		}
	}
	return n
}

func (m *measures) expire(now time.Time) (n int) {
	for key, ev := range m.byKey {
		if over(ev.Expires, now) {
			m.drop(key)
			n++
		}
	}
	return n
}

// outlasts says whether something that stands until a time, or for ever (zero), does
// so for longer than another.
func outlasts(expires, other time.Time) bool {
	return !other.IsZero() && (expires.IsZero() || expires.After(other))
}
