package qemu

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vmgate/vmgate/pkg/vmi"
	"github.com/vmgate/vmgate/pkg/vmi/qmp"
)

const (
	// maxSave is the most that QEMU is told to write at once: the machine stands
	// still meanwhile.
	maxSave = 1 << 20
	// saveTimeout ends a read from a monitor that has become silent.
	saveTimeout = 5 * time.Second
)

// OpenMonitor opens the memory of the machine behind a monitor's socket, by
// having QEMU write out each piece that is read (pmemsave). It needs nothing but
// the socket, and is the slowest way: a read takes as long as some ten thousand
// from a file, a read of a page never touched makes QEMU allocate it if it is in
// a file, and the machine stands still for the time of each. Reads are slowed
// down so that they take half of its time at most. The memory ends with QEMU.
//
// QEMU writes to a file without a name whose descriptor it is given, so that
// there is nothing to choose a directory for and nothing to be left behind.
func OpenMonitor(ctx context.Context, socket string) (vmi.Memory, error) {
	m, err := openMonitor(ctx, socket)
	if err != nil {
		return nil, fmt.Errorf("cannot read memory by the monitor %s: %w", socket, err)
	}
	return m, nil
}

func openMonitor(ctx context.Context, socket string) (_ vmi.Memory, err error) {
	monitor, err := qmp.Dial(ctx, socket)
	if err != nil {
		return nil, err
	}
	m := &monitorMemory{monitor: monitor, pace: pace{credit: maxCredit}}
	defer func() {
		if err != nil {
			err = errors.Join(err, m.Close())
		}
	}()
	// Asked for addresses too: pmemsave itself writes zeros where there is no RAM.
	if _, err = layoutBy(ctx, monitor); err != nil {
		return nil, err
	}
	if m.layout, err = guestLayout(ctx, monitor); err != nil {
		return nil, err
	}
	fd, err := unix.MemfdCreate("vmgate-pmemsave", unix.MFD_CLOEXEC)
	if err != nil {
		return nil, err
	}
	m.file = os.NewFile(uintptr(fd), "pmemsave")
	theirs, err := monitor.SendFile(ctx, fd)
	if err != nil {
		return nil, err
	}
	m.name = fmt.Sprintf("/proc/self/fd/%d", theirs)
	return m, m.ReadPhys(make([]byte, 8), 0)
}

// monitorMemory is guest memory behind a monitor.
type monitorMemory struct {
	monitor *qmp.Monitor
	layout  vmi.Layout
	name    string // of the file, in QEMU

	mu   sync.Mutex // one read at a time: there is one file
	file *os.File
	pace pace
}

func (m *monitorMemory) ReadPhys(p []byte, addr uint64) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for len(p) > 0 {
		_, run, ok := m.layout.Offset(addr)
		if !ok {
			return fmt.Errorf("no guest RAM at physical address %#x", addr)
		}
		n := min(uint64(len(p)), run, maxSave)
		if err := m.save(p[:n], addr); err != nil {
			return fmt.Errorf("cannot read guest memory at %#x: %w", addr, err)
		}
		p, addr = p[n:], addr+n
	}
	return nil
}

// save reads one piece. The caller holds mu.
func (m *monitorMemory) save(p []byte, addr uint64) error {
	ctx, cancel := context.WithTimeout(context.Background(), saveTimeout)
	defer cancel()
	arguments := struct {
		At   uint64 `json:"val"`
		Size int    `json:"size"`
		File string `json:"filename"`
	}{addr, len(p), m.name}
	time.Sleep(m.pace.wait(time.Now()))
	begin := time.Now()
	err := m.monitor.Execute(ctx, "pmemsave", arguments, nil)
	m.pace.took(time.Since(begin))
	if err != nil {
		return err
	}
	_, err = m.file.ReadAt(p, 0)
	return err
}

// BlockSize makes searches read as much at once as QEMU may write.
func (m *monitorMemory) BlockSize() int { return maxSave }

// Ranges lists all RAM: a monitor does not tell what is used of it.
func (m *monitorMemory) Ranges() ([]vmi.Range, error) { return m.layout.Ranges(), nil }

func (m *monitorMemory) Close() error {
	err := m.monitor.Close()
	if m.file != nil {
		err = errors.Join(err, m.file.Close())
	}
	if errors.Is(err, os.ErrClosed) {
		return nil // it was closed before
	}
	return err
}

// pace lets something take half of the time, and maxCredit without a pause.
type pace struct {
	credit time.Duration
	last   time.Time
}

const maxCredit = 250 * time.Millisecond

// wait tells how long to pause before the next.
func (p *pace) wait(now time.Time) time.Duration {
	if !p.last.IsZero() {
		p.credit = min(p.credit+now.Sub(p.last), maxCredit)
	}
	pause := max(-p.credit, 0)
	p.last = now.Add(pause)
	p.credit += pause
	return pause
}

// took records how long one has taken; the time itself gives no credit.
func (p *pace) took(d time.Duration) {
	p.credit -= d
	p.last = p.last.Add(d)
}
