package lab

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// openMacvtap opens the character device of a macvtap interface. Its number is
// only in the sysfs of its network namespace, and /dev may not have it (or
// have one of the same name from another namespace), so the node is made here
// and removed as soon as it is open.
func (n *Namespace) openMacvtap(name string) (*os.File, error) {
	dir, err := os.MkdirTemp("", prefix()+"tap-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	device, err := n.macvtapDevice(name, dir)
	if err != nil {
		return nil, err
	}
	node := filepath.Join(dir, name)
	if err := unix.Mknod(node, unix.S_IFCHR|0o600, int(device)); err != nil {
		return nil, fmt.Errorf("cannot make its device node: %w", err)
	}
	return os.OpenFile(node, os.O_RDWR|unix.O_NONBLOCK, 0)
}

// macvtapDevice reads the device number in a private mount of sysfs, on a
// thread that is thrown away afterwards: what it has unshared cannot be undone.
func (n *Namespace) macvtapDevice(name, dir string) (device uint64, err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		device, err = n.readMacvtapDevice(name, dir)
	}()
	<-done
	return device, err
}

func (n *Namespace) readMacvtapDevice(name, dir string) (uint64, error) {
	err := errors.Join(
		netns.Set(n.handle),
		unix.Unshare(unix.CLONE_NEWNS),
		unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""),
		unix.Mount("sysfs", dir, "sysfs", 0, ""),
	)
	if err != nil {
		return 0, fmt.Errorf("cannot mount the namespace's sysfs: %w", err)
	}
	matches, err := filepath.Glob(filepath.Join(dir, "class/net", name, "macvtap", "tap*", "dev"))
	if err != nil || len(matches) != 1 {
		return 0, fmt.Errorf("cannot find its device number in sysfs: %d matches", len(matches))
	}
	text, err := os.ReadFile(matches[0])
	if err != nil {
		return 0, err
	}
	var major, minor uint32
	if _, err := fmt.Sscanf(strings.TrimSpace(string(text)), "%d:%d", &major, &minor); err != nil {
		return 0, fmt.Errorf("cannot read its device number %q: %w", text, err)
	}
	return unix.Mkdev(major, minor), nil
}
