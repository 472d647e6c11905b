package source_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vmgate/vmgate/internal/config"
	"github.com/vmgate/vmgate/internal/lab"
	"github.com/vmgate/vmgate/internal/source"
	"github.com/vmgate/vmgate/pkg/vmi"
)

// named is a guest that has nothing but a name.
type named struct {
	vmi.Guest
	os string
}

func (n named) OS() string { return n.os }

// machine is something to keep open.
type machine struct {
	mu     sync.Mutex
	err    error // of opening
	gone   error // what Same says
	opened int
	closed int
}

func (m *machine) open(context.Context) (*source.Opened, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.err != nil {
		return nil, m.err
	}
	m.opened++
	return &source.Opened{
		Guest: named{os: fmt.Sprint("boot ", m.opened)},
		Same:  func(context.Context) error { m.mu.Lock(); defer m.mu.Unlock(); return m.gone },
		Close: func() error { m.mu.Lock(); defer m.mu.Unlock(); m.closed++; return nil },
	}, nil
}

func (m *machine) set(err, gone error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.err, m.gone = err, gone
}

func keep(t *testing.T, open source.Opener) *source.Keeper {
	t.Helper()
	k := source.NewKeeper("app1", open, slog.New(slog.DiscardHandler))
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { k.Keep(ctx); close(done) }()
	t.Cleanup(func() { cancel(); <-done })
	return k
}

// await waits until the keeper is in a state, with words in its detail.
func await(t *testing.T, k *source.Keeper, state, detail string) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) {
		s, _, d := k.Status()
		if s == state && strings.Contains(d, detail) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("it is %s: %s; want %s: %s", s, d, state, detail)
		}
	}
}

func TestKeeper_States(t *testing.T) {
	t.Parallel()
	m := &machine{err: errors.New("no such file")}
	k := source.NewKeeper("app1", m.open, slog.New(slog.DiscardHandler))
	if state, _, detail := k.Status(); state != source.Waiting || detail != "not tried yet" {
		t.Errorf("before: %s, %s", state, detail)
	}
	k = keep(t, m.open)
	await(t, k, source.Failing, "no such file")
	if _, err := k.Current(); err == nil || !strings.Contains(err.Error(), "cannot introspect app1: failing: no such file") {
		t.Errorf("%v", err)
	}
	m.set(fmt.Errorf("%w: nothing there", vmi.ErrNotReady), nil)
	await(t, k, source.Waiting, "nothing there")
	if _, err := k.Current(); !errors.Is(err, vmi.ErrNotReady) {
		t.Errorf("%v", err)
	}
	m.set(fmt.Errorf("%w: strange", vmi.ErrNotUnderstood), nil)
	await(t, k, source.Failing, "strange")
	if _, err := k.Current(); !errors.Is(err, vmi.ErrNotUnderstood) {
		t.Errorf("%v", err)
	}
	m.set(nil, nil)
	await(t, k, source.Ready, "")
	if _, os, _ := k.Status(); os != "boot 1" {
		t.Errorf("OS %q", os)
	}
	// The machine goes, and stays away.
	m.set(errors.New("no QEMU"), errors.New("it has ended"))
	await(t, k, source.Failing, "no QEMU")
	m.set(nil, nil)
	await(t, k, source.Ready, "")
	// The guest itself says that its kernel is another.
	k.Noticed(errors.New("anything"))
	k.Noticed(fmt.Errorf("cannot look: %w", vmi.ErrChanged))
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		if _, os, _ := k.Status(); os == "boot 3" {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("it is not discovered anew")
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.opened != 3 || m.closed != 2 {
		t.Errorf("opened %d times, closed %d times", m.opened, m.closed)
	}
}

// A guest that changes all the time does not keep a processor busy.
func TestKeeper_IsNotHurriedByItsGuest(t *testing.T) {
	t.Parallel()
	var opened atomic.Int32
	keep(t, func(context.Context) (*source.Opened, error) {
		opened.Add(1)
		return &source.Opened{
			Guest: named{os: "x"},
			Same:  func(context.Context) error { return errors.New("another") },
			Close: func() error { return nil },
		}, nil
	})
	time.Sleep(2 * time.Second) // measured time is what this is about
	if n := opened.Load(); n > 4 || n == 0 {
		t.Errorf("opened %d times in two seconds", n)
	}
}

// A machine that is switched off and on again is another QEMU of the same name.
func TestKeeper_FollowsAMachine(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: a guest takes seconds to boot")
	}
	if err := lab.GuestSupport(""); err != nil {
		t.Skip(err)
	}
	g := start(t, lab.GuestConfig{Name: "follow", Backing: lab.MemFD})
	place := config.Memory{Process: config.Process{Name: g.Name()}}
	k := keep(t, func(ctx context.Context) (*source.Opened, error) { return source.Open(ctx, place, vmi.Options{}) })
	await(t, k, source.Ready, "")
	first, err := k.Current()
	if err != nil {
		t.Fatal(err)
	}
	if err := g.Close(); err != nil {
		t.Fatal(err)
	}
	await(t, k, source.Failing, "no QEMU machine is called")
	start(t, lab.GuestConfig{Name: "follow", Backing: lab.MemFD})
	await(t, k, source.Ready, "")
	second, err := k.Current()
	if err != nil || second == first {
		t.Errorf("the same guest as before, %v", err)
	}
	if list, err := second.Processes(t.Context()); err != nil || len(list) < 20 {
		t.Errorf("%d processes, %v", len(list), err)
	}
}
