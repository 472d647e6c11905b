package snort

import (
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// The main thread is what /proc/self shows of the daemon; its namespace and
// capabilities must stay, also when the caller happens to run on it.
func TestOnThread_IsNeverTheMainThread(t *testing.T) {
	seen := map[int]bool{}
	for range 200 {
		must(t, onThread(func() error {
			seen[unix.Gettid()] = true
			return nil
		}))
		runtime.Gosched()
	}
	if seen[unix.Getpid()] {
		t.Error("ran on the main thread")
	}
}
