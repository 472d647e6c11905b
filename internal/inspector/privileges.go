package inspector

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/vmgate/vmgate/internal/config"
)

// neededFor are the capabilities that each way takes where guests belong to other
// users. Reading files comes with all: certificates' keys may be another user's.
var neededFor = map[string][]int{
	"descriptor": {unix.CAP_SYS_PTRACE},
	"process":    {unix.CAP_SYS_PTRACE},
	"monitor":    {unix.CAP_DAC_OVERRIDE}, // to connect to a socket is to write to it
}

// Needed are the capabilities that an inspector keeps.
func Needed(cfg *config.InspectorConfig) []int {
	keep := []int{unix.CAP_DAC_READ_SEARCH}
	for _, way := range cfg.Ways {
		for _, c := range neededFor[way] {
			if !slices.Contains(keep, c) {
				keep = append(keep, c)
			}
		}
	}
	return keep
}

// restrictedEnv tells the program that it has been executed anew.
const restrictedEnv = "VMGATE_RESTRICTED"

// Restrict gives up all capabilities but those to keep, and the right to ever get
// more. It does not return where it has anything to give up: these are matters of
// a thread, not of a process, and Go has many, so that one thread gives up and
// executes the program anew, whose threads are then all alike.
func Restrict(keep []int) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	done, err := isRestricted(keep)
	if done || err != nil {
		return err
	}
	if os.Getenv(restrictedEnv) != "" { // not for ever
		return errors.New("cannot give up privileges: the kernel gives them back; root needs CAP_SETPCAP to give up others")
	}
	if err := restrictThread(keep); err != nil {
		return fmt.Errorf("cannot give up privileges: %w", err)
	}
	err = syscall.Exec("/proc/self/exe", os.Args, append(os.Environ(), restrictedEnv+"=1"))
	return fmt.Errorf("cannot give up privileges: cannot execute the program anew: %w", err)
}

// capabilities are the calling thread's; a set has two words (capget(2)).
func capabilities() (unix.CapUserHeader, [2]unix.CapUserData, error) {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var sets [2]unix.CapUserData
	err := unix.Capget(&header, &sets[0])
	return header, sets, err
}

func mask(keep []int) (m [2]uint32) {
	for _, c := range keep {
		m[c/32] |= 1 << (c % 32)
	}
	return m
}

func isRestricted(keep []int) (bool, error) {
	_, sets, err := capabilities()
	if err != nil {
		return false, fmt.Errorf("cannot tell which privileges there are: %w", err)
	}
	fixed, err := unix.PrctlRetInt(unix.PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0)
	m := mask(keep)
	return fixed == 1 && sets[0].Permitted&^m[0] == 0 && sets[1].Permitted&^m[1] == 0, err
}

// restrictThread gives up for the calling thread. The bounding set holds root's
// program to it, and the ambient set lets another user's program keep what stays.
func restrictThread(keep []int) error {
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	header, sets, err := capabilities()
	if err != nil {
		return err
	}
	for c := range unix.CAP_LAST_CAP + 1 {
		if slices.Contains(keep, c) {
			continue
		}
		// Who may not change the bounding set gets nothing from it, unless it is root.
		if err := unix.Prctl(unix.PR_CAPBSET_DROP, uintptr(c), 0, 0, 0); err != nil && !errors.Is(err, unix.EPERM) && !errors.Is(err, unix.EINVAL) {
			return err
		}
	}
	m := mask(keep)
	for i := range sets {
		sets[i].Permitted &= m[i]
		sets[i].Effective, sets[i].Inheritable = sets[i].Permitted, sets[i].Permitted
	}
	if err := unix.Capset(&header, &sets[0]); err != nil {
		return err
	}
	for _, c := range keep {
		if sets[c/32].Permitted&(1<<(c%32)) == 0 {
			continue
		}
		if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_RAISE, uintptr(c), 0, 0); err != nil {
			return err
		}
	}
	return nil
}
