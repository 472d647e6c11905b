package vmi_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/vmgate/vmgate/internal/lab"
	"github.com/vmgate/vmgate/pkg/vmi"
)

// From its first instruction on a guest is either not ready or answers; what is
// answered is never of a kernel that has not started its first process.
func TestGuest_IsWaitedForWhileItBoots(t *testing.T) {
	f := guest(t) // only for the kernel to be known good
	before, _ := filepath.Glob("/dev/shm/*-booting-*.ram")
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	booted := make(chan error, 1)
	var g *lab.Guest
	go func() {
		var err error
		g, err = lab.StartGuest(ctx, lab.GuestConfig{Name: "booting", CPUs: fromEnv(envCPUs), MemoryMiB: fromEnv(envMemory)})
		booted <- err
	}()
	states := make(map[string]int)
	var last error
	for done := false; !done; {
		select {
		case err := <-booted:
			if err != nil {
				t.Fatal(err)
			}
			defer g.Close()
			done = true
		default:
		}
		now, _ := filepath.Glob("/dev/shm/*-booting-*.ram")
		if len(now) <= len(before) {
			time.Sleep(time.Millisecond)
			continue
		}
		path := now[len(now)-1]
		if done {
			path = g.MemoryFile()
		}
		mem, err := vmi.OpenFile(path, "")
		if err != nil {
			if os.IsNotExist(err) {
				t.Fatal(err)
			}
			continue // not yet of its size
		}
		var os vmi.Guest
		if os, last = vmi.Open(ctx, mem, vmi.Options{}); last == nil {
			states["ready"]++
			if os.OS() != f.os.OS() {
				t.Errorf("found %s", os.OS())
			}
			if _, err := os.Processes(ctx); err != nil && !errors.Is(err, vmi.ErrUnstable) && !errors.Is(err, vmi.ErrChanged) {
				t.Error(err)
			}
		} else if errors.Is(last, vmi.ErrNotReady) {
			states["not ready"]++
		} else {
			states[last.Error()]++
		}
		_ = mem.Close()
	}
	if last != nil {
		t.Errorf("after the boot: %v", last)
	}
	t.Logf("%v", states)
	if states["not ready"] == 0 || states["ready"] == 0 {
		t.Errorf("states %v", states)
	}
}
