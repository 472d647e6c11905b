package vmi_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/vmgate/vmgate/internal/lab"
	"github.com/vmgate/vmgate/pkg/vmi"
)

// A machine that is switched off and comes back with another kernel in the same
// memory file, over what the former has left there, is discovered anew. The
// guest that was opened before answers nothing of either.
func TestReboot_IntoAnotherKernel(t *testing.T) {
	if testing.Short() {
		t.Skip("boots guests")
	}
	first, second := kernelOf(t, "bookworm", "6.1."), kernelOf(t, "trixie", "6.12.")
	ram, err := os.CreateTemp("/dev/shm", "vmi-reboot-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.Remove(ram.Name())
	defer ram.Close()
	f := bootIn(t, first, ram.Name())
	if err := f.open(); err != nil {
		t.Fatal(err)
	}
	defer f.mem.Close()
	before := f.os
	if _, err := before.Processes(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	g := bootIn(t, second, ram.Name())
	defer g.Close()
	q := vmi.Query{Proto: 6, Local: local(t, "80")}
	if a, err := before.Owners(t.Context(), q); !errors.Is(err, vmi.ErrChanged) {
		t.Errorf("the former kernel's guest answers %+v, %v", a, err)
	}
	if list, err := before.Processes(t.Context()); !errors.Is(err, vmi.ErrChanged) {
		t.Errorf("the former kernel's guest lists %d processes, %v", len(list), err)
	}
	if found, err := before.Findings(t.Context()); !errors.Is(err, vmi.ErrChanged) {
		t.Errorf("the former kernel's guest has %d findings, %v", len(found), err)
	}
	if err := g.open(); err != nil {
		t.Fatal(err)
	}
	defer g.mem.Close()
	if g.os.OS() == before.OS() {
		t.Errorf("%s again", g.os.OS())
	}
	g.expectTruth(t)
}

func bootIn(t *testing.T, kernel, ram string) *fixture {
	t.Helper()
	f, err := bootAs(lab.GuestConfig{Name: "reboot", Kernel: kernel, RAM: ram})
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// A guest that resets itself has another kernel a moment later, though it is the
// same one: nothing of the former is answered as if it were of now.
func TestReboot_OfItself(t *testing.T) {
	f := guest(t) // only for the kernel to be known good
	name := fmt.Sprintf("resets%d", os.Getpid())
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	g, err := lab.StartGuest(ctx, lab.GuestConfig{Name: name, Reboots: true})
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	mem, err := vmi.OpenFile(g.MemoryFile(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer mem.Close()
	before, err := vmi.Open(ctx, mem, vmi.Options{})
	if err != nil {
		t.Fatal(err)
	}
	started := startOfInit(t, ctx, before)
	if _, err := g.Start(ctx, "resetter", "reset"); err != nil {
		t.Log(err) // it may not get to say that it has started
	}
	states := make(map[string]int)
	for {
		if _, err := before.Processes(ctx); errors.Is(err, vmi.ErrChanged) {
			break
		} else if err != nil {
			states[err.Error()]++
		}
		if ctx.Err() != nil {
			t.Fatalf("the reset was never noticed: %v", states)
		}
		time.Sleep(5 * time.Millisecond)
	}
	for {
		after, err := vmi.Open(ctx, mem, vmi.Options{})
		if err == nil {
			if _, err = before.Processes(ctx); !errors.Is(err, vmi.ErrChanged) {
				t.Errorf("the guest of before the reset answers again: %v", err)
			}
			if after.OS() != f.os.OS() {
				t.Errorf("after the reset it is %s", after.OS())
			}
			if again := startOfInit(t, ctx, after); again == started {
				t.Errorf("process 1 has run since %d ns before and after the reset", again)
			}
			t.Logf("until it was discovered: %v", states)
			return
		}
		// What the former has left is overwritten bit by bit: for a moment it may
		// look like a kernel that is not understood.
		if !errors.Is(err, vmi.ErrNotReady) && !errors.Is(err, vmi.ErrNotUnderstood) {
			t.Fatalf("while it boots again: %v", err)
		}
		if states[err.Error()]++; ctx.Err() != nil {
			t.Fatalf("it was never discovered anew: %v", states)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// startOfInit waits until process 1 is there, and tells when it was started.
func startOfInit(t *testing.T, ctx context.Context, g vmi.Guest) uint64 {
	t.Helper()
	for ctx.Err() == nil {
		list, err := g.Processes(ctx)
		if err != nil && !errors.Is(err, vmi.ErrUnstable) {
			t.Fatal(err)
		}
		for _, p := range list {
			if p.PID == 1 {
				return p.Start
			}
		}
	}
	t.Fatal("there is no process 1")
	return 0
}
