package vmi

import (
	"context"
	"fmt"
)

// budget bounds the reads of one operation. Every loop over guest memory has a
// bound of its own, but a hostile guest may nest them.
type budget struct {
	ctx  context.Context
	left int
	over error   // why no more reads are allowed, once they are not
	word [8]byte // what was read last, so that small reads need not allocate
}

// maxReads is some fifty times what the busiest guest that was measured needs,
// and a few seconds at worst.
const maxReads = 4 << 20

// spend takes one read off the budget. It fails too when the operation has been
// cancelled, which it looks up now and then: often enough where a read takes a
// millisecond, as by a monitor. Once it has failed it always does.
func (b *budget) spend() error {
	if b == nil || b.over != nil {
		return b.ended()
	}
	if b.left--; b.left < 0 {
		b.over = fmt.Errorf("%w: its lists do not end", ErrUnstable)
	} else if b.left%16 == 0 {
		b.over = b.ctx.Err()
	}
	return b.over
}

// ended says why no more reads are allowed; nil while they are.
func (b *budget) ended() error {
	if b == nil {
		return nil
	}
	return b.over
}

// metered is memory whose reads are taken off a budget.
type metered struct {
	Memory
	*budget
}

func (m metered) ReadPhys(p []byte, addr uint64) error {
	if err := m.spend(); err != nil {
		return err
	}
	return m.Memory.ReadPhys(p, addr)
}
