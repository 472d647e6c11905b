package bench_test

import (
	"errors"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// alone runs f on a thread that stays on the last CPU and that no ordinary process
// takes the CPU from, so that what else the machine does is not measured. f is to
// take less than a second: the kernel keeps the twentieth part of each for others.
func alone(b *testing.B, f func() error) {
	b.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var before, last unix.CPUSet
	must(b, unix.SchedGetaffinity(0, &before))
	last.Set(runtime.NumCPU() - 1)
	must(b, unix.SchedSetaffinity(0, &last))
	must(b, unix.SchedSetAttr(0, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_FIFO, Priority: 1}, 0))
	err := f()
	must(b, errors.Join(err,
		unix.SchedSetAttr(0, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_NORMAL}, 0),
		unix.SchedSetaffinity(0, &before)))
}
