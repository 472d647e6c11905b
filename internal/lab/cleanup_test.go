package lab

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// leftovers lists what a process has outside of namespaces.
func leftovers(pid int) []string {
	var all []string
	name := fmt.Sprintf("vg%d-*", pid)
	for _, dir := range []string{namespaceDir, "/dev/shm", os.TempDir()} {
		found, _ := filepath.Glob(filepath.Join(dir, name))
		all = append(all, found...)
	}
	return all
}

func TestNewTopology_CancelledWhileGuestsBootLeavesNothing(t *testing.T) {
	needRoot(t)
	needGuests(t)
	before := leftovers(os.Getpid())
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	done := make(chan error, 1)
	go func() {
		_, err := NewTopology(ctx, Guests, nil)
		done <- err
	}()
	for len(memoryFiles(os.Getpid())) < 3 { // three guests have begun
		select {
		case err := <-done:
			t.Fatalf("ended before it was cancelled: %v", err)
		case <-time.After(10 * time.Millisecond):
		}
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	if after := leftovers(os.Getpid()); len(after) > len(before) {
		t.Errorf("left: %q", after)
	}
}

func memoryFiles(pid int) []string {
	files, _ := filepath.Glob(fmt.Sprintf("/dev/shm/vg%d-*.ram", pid))
	return files
}

// TestKilledProcess kills a process with a whole lab: its QEMU ends with it,
// and the next lab removes the rest.
func TestKilledProcess(t *testing.T) {
	needRoot(t)
	needGuests(t)
	child := exec.CommandContext(t.Context(), os.Args[0])
	child.Env = append(os.Environ(), "VMGATE_LAB_HELPER=1")
	child.Stderr = os.Stderr
	out, err := child.StdoutPipe()
	if err == nil {
		err = child.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	var guest int
	for lines := bufio.NewScanner(out); guest == 0 && lines.Scan(); {
		_, _ = fmt.Sscanf(lines.Text(), "guest %d", &guest)
	}
	if guest == 0 || len(leftovers(child.Process.Pid)) < 3 {
		t.Fatalf("the helper did not make its lab: qemu %d, %q", guest, leftovers(child.Process.Pid))
	}
	if err := child.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = child.Wait() // killed
	for end := time.Now().Add(10 * time.Second); running(guest); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("QEMU outlived its process")
		}
	}
	lab, err := New(nil)
	if err != nil {
		t.Fatal(err)
	}
	defer lab.Close()
	if left := leftovers(child.Process.Pid); len(left) > 0 {
		t.Errorf("left: %q", left)
	}
}

func running(pid int) bool {
	state, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && !strings.Contains(string(state), ") Z ") && unix.Kill(pid, 0) == nil
}

// TestMain is also the process that TestKilledProcess kills.
func TestMain(m *testing.M) {
	if os.Getenv("VMGATE_LAB_HELPER") == "" {
		os.Exit(m.Run())
	}
	if err := makeLab(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	select {}
}

func makeLab() error {
	lab, err := New(nil)
	if err != nil {
		return err
	}
	if _, err := lab.NewNamespace("one"); err != nil {
		return err
	}
	guest, err := StartGuest(context.Background(), GuestConfig{Name: "orphan"})
	if err != nil {
		return err
	}
	fmt.Printf("guest %d\n", guest.pid)
	return nil
}
