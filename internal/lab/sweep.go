package lab

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"

	"golang.org/x/sys/unix"
)

const namespaceDir = "/run/netns"

// owned matches what Prefix makes, and finds the pid in it.
var owned = regexp.MustCompile(`^vg([0-9]+)-`)

// sweep removes what processes that no longer exist have left: namespaces,
// memory files, temporary directories and a daemon's pins. A process that is killed, as go test
// does at its timeout, closes nothing.
func sweep() error {
	var errs []error
	for _, pattern := range []string{namespaceDir + "/vg*", "/dev/shm/vg*.ram", filepath.Join(os.TempDir(), "vg*"), "/sys/fs/bpf/vg*"} {
		paths, err := filepath.Glob(pattern)
		errs = append(errs, err)
		for _, path := range paths {
			if abandoned(filepath.Base(path)) {
				errs = append(errs, remove(path))
			}
		}
	}
	return errors.Join(errs...)
}

func abandoned(name string) bool {
	match := owned.FindStringSubmatch(name)
	if match == nil {
		return false
	}
	pid, err := strconv.Atoi(match[1])
	return err == nil && errors.Is(unix.Kill(pid, 0), unix.ESRCH)
}

// remove takes away one leftover. Another process may be at the same.
func remove(path string) error {
	if filepath.Dir(path) == namespaceDir {
		err := unix.Unmount(path, unix.MNT_DETACH)
		if err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) { // EINVAL: never mounted
			return fmt.Errorf("cannot remove network namespace %s: %w", filepath.Base(path), err)
		}
	}
	return os.RemoveAll(path)
}
