package vmi_test

import (
	"context"
	"errors"
	"fmt"
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
	name := fmt.Sprintf("booting%d", os.Getpid())
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	booted := make(chan error, 1)
	var g *lab.Guest
	go func() {
		var err error
		g, err = lab.StartGuest(ctx, lab.GuestConfig{Name: name, CPUs: fromEnv(envCPUs), MemoryMiB: fromEnv(envMemory)})
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
		files, _ := filepath.Glob("/dev/shm/*" + name + "-*.ram")
		if len(files) != 1 {
			time.Sleep(time.Millisecond)
			continue
		}
		mem, err := vmi.OpenFile(files[0], "")
		if err != nil {
			continue // not yet of its size
		}
		var opened vmi.Guest
		if opened, last = vmi.Open(ctx, mem, vmi.Options{}); last == nil {
			states["ready"]++
			if opened.OS() != f.os.OS() {
				t.Errorf("found %s", opened.OS())
			}
			if _, err := opened.Processes(ctx); err != nil && !errors.Is(err, vmi.ErrUnstable) && !errors.Is(err, vmi.ErrChanged) {
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
