package bpf_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vmgate/vmgate/internal/lab"
)

// inGuest are the tests that also run on the guest's kernel. Each loads every
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
}

// TestGuest_OlderKernelTakesThePrograms: verifiers differ, so that a program
// this kernel takes may be refused by another. The guest's is that of the
// Debian release (6.1 or 6.12), or of VMGATE_GUEST_KERNEL.
func TestGuest_OlderKernelTakesThePrograms(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: guests take seconds to boot")
	}
	if err := lab.GuestSupport(""); err != nil {
		t.Skip(err)
	}
	guest, err := lab.StartGuest(t.Context(), lab.GuestConfig{
		Name: "verifier", MemoryMiB: 768,
		Files: map[string]string{"/bin/bpf.test": buildTests(t)},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := guest.Close(); err != nil {
			t.Error(err)
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	pattern := "^(" + strings.Join(inGuest, "|") + ")$"
	out, exit, err := guest.Run(ctx, "uname -r; bpf.test -test.v -test.run '"+pattern+"' 2>&1")
	if err != nil {
		t.Fatal(err)
	}
	kernel, log, _ := strings.Cut(out, "\n")
	if exit != 0 {
		t.Fatalf("Linux %s: exit status %d\n%s", kernel, exit, log)
	}
	for _, name := range inGuest {
		if !strings.Contains(log, "\n--- PASS: "+name+" ") {
			t.Errorf("Linux %s: %s did not run\n%s", kernel, name, log)
		}
	}
	t.Logf("Linux %s takes the programs", kernel)
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
