package loader

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// netnsDir is where ip-netns(8) keeps namespaces.
const netnsDir = "/run/netns"

// netnsAlias marks, on its loopback device, a namespace that we made.
const netnsAlias = "vmgate"

// inNetNS calls f on a thread in the namespace ns. The thread ends with f, so
// that nothing else ever runs in the wrong namespace.
func inNetNS(ns netns.NsHandle, f func() error) error {
	result := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		if err := netns.Set(ns); err != nil {
			result <- fmt.Errorf("cannot enter the network namespace: %w", err)
			return
		}
		result <- f()
	}()
	return <-result
}

// ensureNetNS opens the named namespace, making it first if it is missing. The
// caller closes it.
func ensureNetNS(name string, undo *undoStack) (netns.NsHandle, error) {
	ns, err := openNetNS(name)
	if err == nil || !errors.Is(err, fs.ErrNotExist) {
		return ns, err
	}
	if err := makeNetNS(name); err != nil {
		return netns.None(), fmt.Errorf("cannot make the network namespace %s: %w", name, err)
	}
	undo.push(func() error { return removeNetNS(name) })
	return openNetNS(name)
}

// openNetNS opens the named namespace. A file under its name that is no
// namespace (any more) counts as missing.
func openNetNS(name string) (netns.NsHandle, error) {
	if name == "" || name != filepath.Base(name) {
		return netns.None(), fmt.Errorf("%q is no name for a network namespace", name)
	}
	path := filepath.Join(netnsDir, name)
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return netns.None(), &fs.PathError{Op: "open", Path: path, Err: err}
	}
	if st.Type != unix.NSFS_MAGIC {
		return netns.None(), &fs.PathError{Op: "open", Path: path, Err: fs.ErrNotExist}
	}
	return netns.GetFromPath(path)
}

func makeNetNS(name string) error {
	path := filepath.Join(netnsDir, name)
	if err := os.MkdirAll(netnsDir, 0o755); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDONLY, 0o444)
	if err != nil {
		return err
	}
	_ = f.Close()
	result := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		result <- func() error {
			if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
				return err
			}
			lo, err := netlink.LinkByName("lo")
			if err != nil {
				return err
			}
			if err := errors.Join(netlink.LinkSetAlias(lo, netnsAlias), netlink.LinkSetUp(lo)); err != nil {
				return err
			}
			return unix.Mount("/proc/thread-self/ns/net", path, "", unix.MS_BIND, "")
		}()
	}()
	if err := <-result; err != nil {
		return errors.Join(err, os.Remove(path))
	}
	return nil
}

// removeNetNS takes away the name of a namespace, if it was made here. The
// namespace itself ends with the last process in it.
func removeNetNS(name string) error {
	ns, err := openNetNS(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer ns.Close()
	ours := false
	err = inNetNS(ns, func() error {
		lo, err := netlink.LinkByName("lo")
		ours = err == nil && lo.Attrs().Alias == netnsAlias
		return err
	})
	if err != nil || !ours {
		return err
	}
	path := filepath.Join(netnsDir, name)
	if err := errors.Join(unix.Unmount(path, unix.MNT_DETACH), os.Remove(path)); err != nil {
		return fmt.Errorf("cannot remove the network namespace %s: %w", name, err)
	}
	return nil
}
