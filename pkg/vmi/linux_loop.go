package vmi

// loop notices that a walk goes in a circle, by Brent's algorithm: it needs no
// memory, and at most some three times the steps of the way into the circle and
// around it. Bounds alone would let a guest with one altered pointer have us walk
// the same few tasks a hundred thousand times.
type loop struct {
	kept        uint64
	left, power int
}

// meets says whether the walk has been at node before; not every time that it has.
func (l *loop) meets(node uint64) bool {
	if node == l.kept {
		return true
	}
	if l.left--; l.left < 0 {
		l.power = max(2*l.power, 1)
		l.kept, l.left = node, l.power
	}
	return false
}
