package vmi_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/vmgate/vmgate/internal/lab"
	"github.com/vmgate/vmgate/pkg/vmi"
)

// shapes are what the guests of TestMatrix are like. Every kernel runs in all of
// them, and every value is in at least one.
var shapes = []struct {
	name   string
	config lab.GuestConfig
	wiped  bool // it does not tell crash tools what it is
	levels int  // of its page tables
}{
	{name: "one CPU", config: lab.GuestConfig{CPUs: 1, MemoryMiB: 128}, levels: 4},
	{name: "two CPUs on pc without VMCOREINFO", config: lab.GuestConfig{CPUs: 2, MemoryMiB: 160, Machine: "pc"}, wiped: true, levels: 4},
	{name: "two CPUs, 5 GiB, 5-level page tables", config: lab.GuestConfig{CPUs: 2, MemoryMiB: 5 << 10, Features: "+la57"}, levels: 5},
	{name: "one CPU, 4.5 GiB on pc, no KASLR", config: lab.GuestConfig{CPUs: 1, MemoryMiB: 4608, Machine: "pc", Append: "nokaslr"}, levels: 4},
}

// suites are Debian's, with the kernels that they must have for this test to
// cover what it is for.
var suites = []struct {
	name, release string
	levels        int // of page tables that it can have
}{{"bookworm", "6.1.", 5}, {"bullseye", "5.10.", 4}, {"trixie", "6.12.", 5}, {"sid", "7.", 5}}

// TestMatrix boots each kernel in each shape, and compares every process and
// every socket with what the guest itself says.
func TestMatrix(t *testing.T) {
	if testing.Short() {
		t.Skip("boots guests")
	}
	for _, suite := range suites {
		t.Run(suite.name, func(t *testing.T) {
			kernel := kernelOf(t, suite.name, suite.release)
			for i := range shapes {
				t.Run(shapes[i].name, func(t *testing.T) { expectShape(t, kernel, i, suite.levels) })
			}
		})
	}
}

// kernelOf finds the kernel of a suite, or skips the test.
func kernelOf(t *testing.T, suite, release string) string {
	t.Helper()
	dir := lab.KernelOf(suite, release)
	if dir == "" {
		t.Skipf("there is no guest kernel %s of Debian %s (scripts/fetch-kernels.sh gets it where Debian can be reached)", release, suite)
	}
	if err := lab.GuestSupport(dir); err != nil {
		t.Skip(err)
	}
	return dir
}

func expectShape(t *testing.T, kernel string, i, maxLevels int) {
	shape := shapes[i]
	begin := time.Now()
	config := shape.config
	config.Name, config.Kernel = fmt.Sprintf("shape%d", i), kernel
	f, err := bootAs(config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := f.Close(); err != nil {
			t.Error(err)
		}
	})
	if shape.wiped {
		wipeVMCoreInfo(t, f.MemoryFile())
	}
	booted := time.Now()
	if err := f.open(); err != nil {
		t.Fatal(err)
	}
	defer f.mem.Close()
	opened := time.Now()
	if got, want := vmi.PagingLevels(f.os), min(shape.levels, maxLevels); got != want {
		t.Errorf("page tables of %d levels, want %d", got, want)
	}
	release, err := os.ReadFile(filepath.Join(kernel, "release"))
	if err != nil {
		t.Fatal(err)
	}
	if want := "Linux " + strings.TrimSpace(string(release)); f.os.OS() != want {
		t.Errorf("it is %s, want %s", f.os.OS(), want)
	}
	before := allocated(t, f.MemoryFile())
	f.expectTruth(t)
	for _, c := range []struct {
		proto  uint8
		local  string
		owners []string
	}{{6, "127.0.0.1:80", []string{"web"}}, {6, "0.0.0.0:90", []string{"par", "kid"}}, {17, "[::1]:54", []string{"web"}}, {6, "0.0.0.0:99", []string{"ns"}}} {
		a, err := f.os.Owners(t.Context(), vmi.Query{Proto: c.proto, Local: local(t, c.local)})
		if err != nil {
			t.Error(err)
			continue
		}
		f.checkOwners(t, a, c.owners)
	}
	findings, err := f.os.Findings(t.Context())
	if err != nil || len(findings) > 0 {
		t.Errorf("findings in an honest guest: %+v, %v", findings, err)
	}
	// What the guest itself has used meanwhile is little.
	if more := allocated(t, f.MemoryFile()) - before; more > 64<<20 {
		t.Errorf("reading has filled %d MiB of holes in the memory file", more>>20)
	}
	t.Logf("%s: booted in %v, opened in %v, compared in %v", f.os.OS(), booted.Sub(begin).Round(time.Millisecond),
		opened.Sub(booted).Round(time.Millisecond), time.Since(opened).Round(time.Millisecond))
}

// allocated is how much memory a file takes.
func allocated(t *testing.T, path string) int64 {
	t.Helper()
	var stat syscall.Stat_t
	if err := syscall.Stat(path, &stat); err != nil {
		t.Fatal(err)
	}
	return stat.Blocks * 512
}

// wipeVMCoreInfo overwrites what the kernel tells crash tools, from outside.
func wipeVMCoreInfo(t *testing.T, path string) {
	t.Helper()
	ram, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer ram.Close()
	info, err := ram.Stat()
	if err != nil {
		t.Fatal(err)
	}
	wiped := 0
	page, zero := make([]byte, 4096), make([]byte, 4096)
	for at := int64(0); at < info.Size(); at += int64(len(page)) {
		if _, err := ram.ReadAt(page, at); err != nil {
			t.Fatal(err)
		}
		if bytes.HasPrefix(page, []byte("OSRELEASE=")) || bytes.HasPrefix(page[12:], []byte("VMCOREINFO\x00")) {
			if _, err := ram.WriteAt(zero, at); err != nil {
				t.Fatal(err)
			}
			wiped++
		}
	}
	if wiped == 0 {
		t.Fatal("it has no VMCOREINFO")
	}
}
