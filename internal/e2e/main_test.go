// Package e2e_test runs the real gatewayd between hosts in network namespaces
// (and, where QEMU can run, real guests) and looks at what arrives where. All it
// makes bears the pid of the test in its name and is gone when a test ends.
package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/vmgate/vmgate/internal/lab/daemon"
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
	dir, err := os.MkdirTemp("", "vmgate-e2e-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	if gatewayd, err = daemon.Build(context.Background(), dir); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

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
