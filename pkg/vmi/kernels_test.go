package vmi_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Set for the runs that TestKernels starts: what the shared guest is like.
const (
	envCPUs   = "VMI_TEST_CPUS"
	envMemory = "VMI_TEST_MIB"
)

// The tests of a guest hold for every kernel that VMGATE_GUEST_KERNELS names
// (absolute directories as scripts/fetch-kernels.sh makes them, separated by colons), with
// one and two processors and with memory above 4 GiB. Each runs in a process of
// its own, where that guest is the shared one.
func TestKernels(t *testing.T) {
	dirs := filepath.SplitList(os.Getenv("VMGATE_GUEST_KERNELS"))
	if len(dirs) == 0 {
		t.Skip("VMGATE_GUEST_KERNELS names no kernels to run all tests of guests on; TestMatrix runs by itself")
	}
	const whole = "^TestGuest_"
	for _, shape := range []struct{ name, cpus, mib, run string }{
		{"one CPU", "1", "128", whole},
		{"two CPUs", "2", "192", whole},
		// All but those that copy the whole memory.
		{"five GiB", "2", "5120", "^TestGuest_(Processes|Owners|Connections|Sockets|Hidden|FindingsOf|FindingsHiddenProcess|FindingsUnder|Nothing)"},
	} {
		for _, dir := range dirs {
			t.Run(filepath.Base(dir)+"/"+shape.name, func(t *testing.T) {
				if !filepath.IsAbs(dir) {
					t.Fatalf("%s must be absolute: tests run in their package's directory", dir)
				}
				begin := time.Now()
				cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run", shape.run, "-test.timeout", "5m", "-test.v")
				cmd.Env = append(os.Environ(), "VMGATE_GUEST_KERNEL="+dir, envCPUs+"="+shape.cpus, envMemory+"="+shape.mib)
				out, err := cmd.CombinedOutput()
				passed := strings.Count(string(out), "\n--- PASS: ")
				if err != nil || passed == 0 || strings.Contains(string(out), "--- SKIP") && !strings.Contains(string(out), "--- SKIP: TestGuest_SCTP") {
					t.Fatalf("%v\n%s", err, out)
				}
				t.Logf("%d tests in %v", passed, time.Since(begin).Round(time.Second))
			})
		}
	}
}
