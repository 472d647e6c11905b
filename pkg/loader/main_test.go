package loader

import (
	"fmt"
	"os"
	"testing"
)

// TestMain fails the suite when it leaves file descriptors behind.
func TestMain(m *testing.M) {
	before := openFiles()
	code := m.Run()
	if code == 0 {
		for fd, target := range openFiles() {
			if _, was := before[fd]; !was && !isRuntimeFile(target) {
				fmt.Fprintf(os.Stderr, "leaked file descriptor %s: %s\n", fd, target)
				code = 1
			}
		}
	}
	os.Exit(code)
}

func openFiles() map[string]string {
	files := map[string]string{}
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return files
	}
	for _, e := range entries {
		if target, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil {
			files[e.Name()] = target
		}
	}
	return files
}

// isRuntimeFile reports whether the Go runtime or the BPF library's feature
// cache opened a file for good.
func isRuntimeFile(target string) bool {
	switch target {
	case "anon_inode:[eventpoll]", "anon_inode:[eventfd]":
		return true
	}
	return false
}
