package vmitest

import (
	"bytes"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/vmgate/vmgate/pkg/vmi"
)

// localAPIC is a guest-physical address at which a PC never has RAM.
const localAPIC = 0xfee00000

// CheckMemory says in what an implementation of vmi.Memory differs from its
// contract, nil if in nothing that can be seen from outside. The guest may run. It
// closes mem.
func CheckMemory(mem vmi.Memory) error {
	ranges, err := mem.Ranges()
	if err == nil {
		err = checkRanges(ranges)
	}
	if err != nil {
		return errors.Join(err, mem.Close())
	}
	places := placesIn(ranges)
	err = errors.Join(checkReads(mem, places), checkOutside(mem), checkConcurrent(mem, places))
	return errors.Join(err, checkClose(mem, places[0]))
}

func checkRanges(ranges []vmi.Range) error {
	if len(ranges) == 0 {
		return errors.New("Ranges: none; a guest that runs has some memory")
	}
	end := uint64(0)
	for i, r := range ranges {
		switch {
		case r.Start >= r.End:
			return fmt.Errorf("Ranges: %#x to %#x is empty", r.Start, r.End)
		case (r.Start|r.End)%4096 != 0:
			return fmt.Errorf("Ranges: %#x to %#x are not whole pages", r.Start, r.End)
		case i > 0 && r.Start < end:
			return fmt.Errorf("Ranges: %#x to %#x is not above the one before, which ends at %#x", r.Start, r.End, end)
		case r.End > 1<<52:
			return fmt.Errorf("Ranges: %#x to %#x is beyond what processors address", r.Start, r.End)
		case r.Start <= localAPIC && localAPIC < r.End:
			return fmt.Errorf("Ranges: %#x to %#x covers the devices below 4 GiB", r.Start, r.End)
		}
		end = r.End
	}
	return nil
}

// place is something to read.
type place struct {
	at   uint64
	size int
}

// placesIn chooses what to read: the ends of ranges, and what lies across pages.
func placesIn(ranges []vmi.Range) []place {
	const maxRanges = 6
	var out []place
	for i := 0; i < len(ranges); i += 1 + len(ranges)/maxRanges {
		r := ranges[i]
		out = append(out, place{r.Start, 1}, place{r.Start, 4096}, place{r.End - 8, 8}, place{r.End - 4096, 4096})
		if r.End-r.Start >= 3*4096 {
			middle := r.Start + (r.End-r.Start)/2/4096*4096
			out = append(out, place{middle - 3, 8}, place{r.Start + 1, 2*4096 + 5})
		}
		if r.End-r.Start >= 3<<20 {
			out = append(out, place{r.Start + 4095, 2<<20 + 2})
		}
	}
	return out
}

// checkReads reads each place at once and in pieces: the same must be there.
func checkReads(mem vmi.Memory, places []place) error {
	for _, p := range places {
		if err := mem.ReadPhys(nil, p.at); err != nil {
			return fmt.Errorf("ReadPhys of no bytes at %#x: %w", p.at, err)
		}
		if err := checkPieces(mem, p); err != nil {
			return err
		}
	}
	return nil
}

// attempts is how often a place may have been changed by the guest between two reads.
const attempts = 10

func checkPieces(mem vmi.Memory, p place) error {
	before, after, pieces := make([]byte, p.size), make([]byte, p.size), make([]byte, p.size)
	for range attempts {
		for _, whole := range [][]byte{before, pieces, after} {
			step := len(whole)
			if &whole[0] == &pieces[0] {
				step = len(whole)/7 + 1
			}
			for i := 0; i < len(whole); i += step {
				if err := mem.ReadPhys(whole[i:min(i+step, len(whole))], p.at+uint64(i)); err != nil {
					return fmt.Errorf("ReadPhys of %d bytes at %#x: %w", min(step, len(whole)-i), p.at+uint64(i), err)
				}
			}
		}
		if !bytes.Equal(before, after) {
			continue // the guest runs
		}
		if bytes.Equal(before, pieces) {
			return nil
		}
	}
	if p.size > 4096 {
		return nil // too much of it changes all the time
	}
	return fmt.Errorf("ReadPhys of %d bytes at %#x gives something else at once than in pieces", p.size, p.at)
}

// checkOutside reads where no PC has RAM, also from the last address on.
func checkOutside(mem vmi.Memory) error {
	for _, p := range []place{{localAPIC, 8}, {1<<46 - 8, 16}, {1 << 52, 1}, {1<<64 - 8, 8}, {1<<64 - 8, 64}} {
		if mem.ReadPhys(make([]byte, p.size), p.at) == nil {
			return fmt.Errorf("ReadPhys of %d bytes at %#x, where there is no RAM, is no error", p.size, p.at)
		}
	}
	return nil
}

// checkConcurrent reads from several goroutines at once.
func checkConcurrent(mem vmi.Memory, places []place) error {
	var wait sync.WaitGroup
	errs := make([]error, 4)
	for i := range errs {
		wait.Go(func() {
			for j := range places {
				p := places[(i+j)%len(places)]
				if err := mem.ReadPhys(make([]byte, p.size), p.at); err != nil && errs[i] == nil {
					errs[i] = fmt.Errorf("ReadPhys beside other reads: %w", err)
				}
				if _, err := mem.Ranges(); err != nil && errs[i] == nil {
					errs[i] = fmt.Errorf("Ranges beside reads: %w", err)
				}
			}
		})
	}
	wait.Wait()
	return errors.Join(errs...)
}

// checkClose closes mem while it is read: each read has its bytes or an error, and
// all have one from then on.
func checkClose(mem vmi.Memory, p place) error {
	var wait sync.WaitGroup
	var closed atomic.Bool
	for range 4 {
		wait.Go(func() {
			for again := true; again && mem.ReadPhys(make([]byte, p.size), p.at) == nil; {
				again = !closed.Load()
			}
		})
	}
	err := mem.Close()
	closed.Store(true)
	wait.Wait()
	if err != nil {
		return fmt.Errorf("Close: %w", err)
	}
	if mem.ReadPhys(make([]byte, p.size), p.at) == nil {
		return errors.New("ReadPhys after Close is no error")
	}
	return nil
}

// SameMemory says where two ways to one guest's memory show something else. The
// guest may run, but what it changes all the time is passed over only if it is less than a
// tenth of what is compared.
func SameMemory(a, b vmi.Memory) error {
	ranges, err := a.Ranges()
	if err != nil {
		return err
	}
	var total, differ, zero int
	var first uint64
	var size uint64
	for _, r := range ranges {
		size += r.End - r.Start
	}
	const samples = 300
	step := max(size/samples/4096*4096, 4096)
	for _, r := range ranges {
		for at := r.Start; at < r.End; at += step {
			x, y := make([]byte, 4096), make([]byte, 4096)
			same := false
			for i := 0; i < attempts && !same; i++ {
				if err := errors.Join(a.ReadPhys(x, at), b.ReadPhys(y, at)); err != nil {
					return err
				}
				same = bytes.Equal(x, y)
			}
			total++
			if bytes.Equal(x, make([]byte, 4096)) {
				zero++
			}
			if !same {
				if differ++; differ == 1 {
					first = at
				}
			}
		}
	}
	if differ*10 > total || zero == total {
		return fmt.Errorf("%d of %d pages differ, the first at %#x; %d are empty", differ, total, first, zero)
	}
	return nil
}
