package bpf_test

import (
	"context"
	"flag"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vmgate/vmgate/internal/lab"
)

// inGuest are the tests that also run on the guests' kernels. Each loads every
// program; there are flows that are forwarded and frames that are malformed.
var inGuest = []string{
	"TestCost_VerifierEffortStaysBounded",
	"TestEstablished_FlowsOfEveryShapeAreForwardedBothWays",
	"TestParse_WhatIsRefused",
	"TestParse_FortyBytesOfOptionsAreRead",
	"TestParse_EightExtensionHeadersAreRead",
	"TestND",
	"TestEgress",
	"TestIDSReturn",
	"TestModel_BothProgramsDoAsItSays",
}

// guestKernels are those whose verifiers differ most: a program that this kernel
// takes may be refused by another. The first is that of the Debian release, or
// of VMGATE_GUEST_KERNEL; the others are there once scripts/fetch-kernels.sh ran.
var guestKernels = []struct{ suite, release string }{
	{"bookworm", "6.1."}, {"trixie", "6.12."}, {"sid", "7."},
}

var update = flag.Bool("update", false, "write docs/verifier.md from what the kernels say")

// verifierDoc is where the verifiers' efforts are recorded.
const verifierDoc = "../docs/verifier.md"

func TestGuest_OtherKernelsTakeThePrograms(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: guests take seconds to boot")
	}
	if err := lab.GuestSupport(""); err != nil {
		t.Skip(err)
	}
	tests := buildTests(t)
	efforts := map[string]map[string]string{} // release, program
	for _, k := range guestKernels {
		t.Run(k.suite, func(t *testing.T) {
			dir := lab.KernelOf(k.suite, k.release)
			if dir == "" {
				t.Skipf("needs a kernel %s: run scripts/fetch-kernels.sh %s", k.release, k.suite)
			}
			release, effort := runInGuest(t, dir, tests)
			efforts[release] = effort
		})
	}
	if *update {
		if err := os.WriteFile(verifierDoc, verifierTable(efforts), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// runInGuest boots a kernel, runs the tests there and returns its release and
// how many instructions its verifier walked for each program.
func runInGuest(t *testing.T, kernel, tests string) (release string, effort map[string]string) {
	guest, err := lab.StartGuest(t.Context(), lab.GuestConfig{
		Name: "verifier", Kernel: kernel, MemoryMiB: 768,
		Files: map[string]string{"/bin/bpf.test": tests},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := guest.Close(); err != nil {
			t.Error(err)
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), 6*time.Minute)
	defer cancel()
	pattern := "^(" + strings.Join(inGuest, "|") + ")$"
	out, exit, err := guest.Run(ctx, "uname -r; VMGATE_MODEL_FRAMES=1000 bpf.test -test.v -test.run '"+pattern+"' 2>&1")
	if err != nil {
		t.Fatal(err)
	}
	release, log, _ := strings.Cut(out, "\n")
	if exit != 0 {
		t.Fatalf("Linux %s: exit status %d\n%s", release, exit, log)
	}
	for _, name := range inGuest {
		if !strings.Contains(log, "\n--- PASS: "+name+" ") {
			t.Errorf("Linux %s: %s did not run\n%s", release, name, log)
		}
	}
	t.Logf("Linux %s takes the programs", release)
	effort = map[string]string{}
	for _, m := range regexp.MustCompile(`(vmgate_\w+): (\d+) verified instructions`).FindAllStringSubmatch(log, -1) {
		effort[m[1]] = m[2]
	}
	return release, effort
}

func verifierTable(efforts map[string]map[string]string) []byte {
	var b strings.Builder
	b.WriteString(`# What the verifiers walk

Instructions that each kernel's verifier processed to accept a program; the limit is
1,000,000. Written by ` + "`go test ./bpf -run TestGuest -update`" + ` (root not needed, QEMU
guests); the tests hold this machine's kernel and those below 300,000.

| program |`)
	releases := slices.Sorted(maps.Keys(efforts))
	programs := map[string]bool{}
	for _, release := range releases {
		fmt.Fprintf(&b, " %s |", release)
		for program := range efforts[release] {
			programs[program] = true
		}
	}
	b.WriteString("\n|---|" + strings.Repeat("---:|", len(releases)) + "\n")
	for _, program := range slices.Sorted(maps.Keys(programs)) {
		fmt.Fprintf(&b, "| %s |", program)
		for _, release := range releases {
			fmt.Fprintf(&b, " %s |", efforts[release][program])
		}
		b.WriteString("\n")
	}
	return []byte(b.String())
}

// buildTests compiles this package's tests into one static file.
func buildTests(t *testing.T) string {
	t.Helper()
	compiler, err := exec.LookPath("go")
	if err != nil {
		t.Skipf("needs Go, to build the tests for the guest: %v", err)
	}
	file := filepath.Join(t.TempDir(), "bpf.test")
	build := exec.CommandContext(t.Context(), compiler, "test", "-c", "-ldflags=-s -w", "-o", file, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("cannot build the tests for the guest: %v\n%s", err, out)
	}
	return file
}
