package qemu_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"testing"
	"time"

	"github.com/vmgate/vmgate/internal/lab"
	"github.com/vmgate/vmgate/pkg/vmi"
	"github.com/vmgate/vmgate/pkg/vmi/qemu"
)

// The registers lead to the kernel where it does not tell crash tools what it
// is, and nothing that they do not lead to is taken.
func TestRegisters(t *testing.T) {
	g, web := boot(t, lab.GuestConfig{Name: "registers", Monitor: true, CPUs: 2, MemoryMiB: 1024})
	mem, err := vmi.OpenFile(g.MemoryFile(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer mem.Close()
	asked := 0
	registers := func(ctx context.Context) (vmi.Registers, error) {
		asked++
		return qemu.Registers(ctx, g.Monitor())
	}
	open := func(name string, opt vmi.Options) {
		t.Helper()
		begin := time.Now()
		guest, err := vmi.Open(t.Context(), mem, opt)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		took := time.Since(begin)
		list, err := guest.Processes(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		found := false
		for _, p := range list {
			found = found || p.PID == web && p.Name == "web"
		}
		if !found {
			t.Errorf("%s: web is not among %d processes", name, len(list))
		}
		t.Logf("%s: opened in %v", name, took)
	}
	open("by VMCOREINFO", vmi.Options{})
	open("by registers", vmi.Options{Registers: registers})
	open("by a monitor that fails", vmi.Options{Registers: func(context.Context) (vmi.Registers, error) { return vmi.Registers{}, errors.New("no") }})
	wipe(t, g.MemoryFile())
	open("by looks", vmi.Options{})
	open("by registers, without VMCOREINFO", vmi.Options{Registers: registers})
	if asked != 2 {
		t.Errorf("the monitor was asked %d times", asked)
	}
	slow, err := qemu.OpenMonitor(t.Context(), g.Monitor())
	if err != nil {
		t.Fatal(err)
	}
	defer slow.Close()
	counted := &counting{RegisterReader: slow.(vmi.RegisterReader), BlockReader: slow.(vmi.BlockReader)}
	if _, err := vmi.Open(t.Context(), counted, vmi.Options{}); err != nil {
		t.Fatal(err)
	}
	if counted.read > 256<<20 {
		t.Errorf("by the monitor alone %d MiB of 1024 were read", counted.read>>20)
	}
	for _, r := range []vmi.Registers{{}, {CR3: 0x1000}, {CR3: ^uint64(0), CR4: ^uint64(0)}} {
		guest, err := vmi.Open(t.Context(), mem, vmi.Options{Registers: func(context.Context) (vmi.Registers, error) { return r, nil }})
		if !errors.Is(err, vmi.ErrNotReady) {
			t.Errorf("with registers %+v that lead nowhere: %v, %v", r, guest, err)
		}
	}
}

// counting counts the bytes that are read of a monitor's memory.
type counting struct {
	vmi.RegisterReader
	vmi.BlockReader
	read int
}

func (c *counting) ReadPhys(p []byte, addr uint64) error {
	c.read += len(p)
	return c.RegisterReader.ReadPhys(p, addr)
}

func (c *counting) Ranges() ([]vmi.Range, error) { return c.RegisterReader.Ranges() }

func (c *counting) Close() error { return c.RegisterReader.Close() }

// wipe overwrites what the kernel tells crash tools.
func wipe(t *testing.T, path string) {
	t.Helper()
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	ram, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	wiped := 0
	for page := 0; page < len(ram); page += 4096 {
		if bytes.HasPrefix(ram[page:], []byte("OSRELEASE=")) || bytes.HasPrefix(ram[page+12:], []byte("VMCOREINFO\x00")) {
			if _, err := file.WriteAt(make([]byte, 4096), int64(page)); err != nil {
				t.Fatal(err)
			}
			wiped++
		}
	}
	if wiped == 0 {
		t.Fatal("there is no VMCOREINFO")
	}
}
