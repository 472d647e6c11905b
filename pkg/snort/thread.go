package snort

import (
	"fmt"
	"net"
	"os"
	"runtime"
	"slices"

	"golang.org/x/sys/unix"
)

// engineCaps is all that an engine can do beyond what any user can: open packet
// sockets. Its devices have been made ready for it.
var engineCaps = []uintptr{unix.CAP_NET_RAW}

// onThread runs f on an operating system thread of its own, which ends with
// it: what f changes of the thread (namespace, capabilities) is passed on to
// the processes that f starts and to nothing else.
func onThread(f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the runtime ends the thread
		if unix.Gettid() == unix.Getpid() {
			// The main thread cannot end, and it is what /proc/self shows. While it is
			// held here, f gets another.
			defer runtime.UnlockOSThread()
			done <- onThread(f)
			return
		}
		done <- f()
	}()
	return <-done
}

// enterNetNS moves the calling thread; an empty path leaves it where it is.
func enterNetNS(path string) error {
	if path == "" {
		return nil
	}
	f, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("cannot open network namespace: %w", err)
	}
	defer f.Close()
	if err := unix.Setns(int(f.Fd()), unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("cannot enter network namespace %s: %w", path, err)
	}
	return nil
}

// confine takes all capabilities but caps from what the calling thread will execute.
// An engine parses hostile packets in C. Gone from the bounding set, a capability
// cannot come back with exec, nor by a file's.
func confine(caps []uintptr) error {
	for c := uintptr(0); c <= unix.CAP_LAST_CAP; c++ {
		if slices.Contains(caps, c) {
			continue
		}
		err := unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0)
		if err != nil && err != unix.EINVAL { // EINVAL: an older kernel without c
			return fmt.Errorf("cannot drop capability %d (the daemon needs CAP_SETPCAP): %w", c, err)
		}
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("cannot set no_new_privs: %w", err)
	}
	return nil
}

// devicePair is what the engine's devices are at the moment of a start.
type devicePair struct {
	indexes [2]int // interface indexes of In and Out
	mtu     int    // the larger of both, bytes
}

// findDevices looks for the pair in the engine's namespace. That both are
// there, and up, is told here because the engines' own messages do not.
func findDevices(netNS, in, out string) (devicePair, error) {
	var pair devicePair
	err := onThread(func() error {
		if err := enterNetNS(netNS); err != nil {
			return err
		}
		for i, name := range []string{in, out} {
			dev, err := net.InterfaceByName(name)
			if err != nil {
				return fmt.Errorf("cannot find device %s in the engine's namespace: %w", name, err)
			}
			if dev.Flags&net.FlagUp == 0 {
				return fmt.Errorf("device %s is down: set it up first", name)
			}
			pair.indexes[i] = dev.Index
			pair.mtu = max(pair.mtu, dev.MTU)
		}
		return nil
	})
	return pair, err
}
