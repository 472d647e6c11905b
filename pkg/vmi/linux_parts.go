package vmi

import "slices"

// A task struct is some 10 KiB, and what is of use in it lies in half a dozen
// places of 3: reading only these takes a third of the time, where memory is
// mapped.

// partReader is a Memory that reads parts of a stretch at once.
type partReader interface {
	// readParts is ReadPhys for the parts of p, given as offsets; what is between
	// them may be anything then.
	readParts(p []byte, addr uint64, parts []span) error
}

// partGap is the distance from which on two members are read on their own.
const partGap = 128

// partsOf are the parts of a struct's span where its members lie, as offsets in
// that span.
func partsOf(fields []field) []span {
	lo := spanOf(fields...).lo
	var all []span
	for _, f := range fields {
		s := spanOf(f)
		all = append(all, span{s.lo - lo, s.hi - lo})
	}
	slices.SortFunc(all, func(a, b span) int { return int(a.lo) - int(b.lo) })
	out := all[:1]
	for _, s := range all[1:] {
		if last := &out[len(out)-1]; s.lo < last.hi+partGap {
			last.hi = max(last.hi, s.hi)
		} else {
			out = append(out, s)
		}
	}
	return out
}

// readParts fills parts of p from kernel address va; all of it if there are none.
func (s *space) readParts(p []byte, va uint64, parts []span) error {
	from, ok := s.mem.(partReader)
	if !ok || len(parts) == 0 {
		return s.read(p, va)
	}
	phys, run, err := s.phys(va)
	if err != nil || run < uint64(len(p)) {
		return s.read(p, va)
	}
	if err := s.budget.spend(); err != nil {
		return err
	}
	return from.readParts(p, phys, parts)
}

func (m *fileMemory) readParts(p []byte, addr uint64, parts []span) error {
	if off, run, ok := m.layout.Offset(addr); ok && run >= uint64(len(p)) && m.mapping.readParts(p, off, parts) {
		return nil
	}
	return m.ReadPhys(p, addr)
}
