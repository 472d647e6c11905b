// Package e2e_test runs the real gatewayd between hosts in network namespaces
// (and, where QEMU can run, real guests) and looks at what arrives where. All it
// makes bears the pid of the test in its name and is gone when a test ends.
package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// gatewayd is the daemon's program, built once for all tests.
var gatewayd string

func TestMain(m *testing.M) {
	os.Exit(run(m))
}

func run(m *testing.M) int {
	if os.Geteuid() != 0 {
		return m.Run() // each test skips
	}
	sweepPins()
	dir, err := os.MkdirTemp("", "vmgate-e2e-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	gatewayd = filepath.Join(dir, "gatewayd")
	if out, err := exec.Command("go", "build", "-o", gatewayd, "../../cmd/gatewayd").CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "cannot build gatewayd: %v: %s", err, out)
		return 1
	}
	return m.Run()
}

// sweepPins removes the pins of tests that were killed; the lab does the same with
// their namespaces.
func sweepPins() {
	paths, _ := filepath.Glob(pinPrefix + "*") // the pattern is well-formed
	for _, path := range paths {
		var pid int
		if _, err := fmt.Sscanf(path, pinPrefix+"%d-", &pid); err == nil && errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) {
			_ = os.RemoveAll(path) // another test may be at the same
		}
	}
}

// pinPrefix begins the pin directories of the tests, followed by their pid.
const pinPrefix = "/sys/fs/bpf/vg"

// patience is how long a test waits for what must happen: never a measure of how
// fast it does.
const patience = 20 * time.Second

// soon is a context that ends with the test's patience.
func soon(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeoutCause(t.Context(), patience, errors.New("the test's patience ended"))
	t.Cleanup(cancel)
	return ctx
}

// await polls for what no event tells.
func await(t *testing.T, what string, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !done(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain: %s", what)
		}
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
