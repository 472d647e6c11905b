package punt

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"

	"golang.org/x/sys/unix"
)

// inNetNS calls fn with the calling thread in the network namespace of the file
// descriptor, or where it is for 0. Sockets and files that fn opens stay there.
func inNetNS(fd int, fn func() error) error {
	if fd == 0 {
		return fn()
	}
	result := make(chan error, 1)
	go func() {
		// Never unlocked: the thread ends with the goroutine, and nobody else finds
		// himself in the wrong namespace.
		runtime.LockOSThread()
		if err := unix.Setns(fd, unix.CLONE_NEWNET); err != nil {
			result <- fmt.Errorf("cannot enter the network namespace: %w", err)
			return
		}
		result <- fn()
	}()
	return <-result
}

// bridgeSysctls make bridged packets pass the IP hooks of netfilter, VLAN-tagged
// ones too, and keep ARP off them.
var bridgeSysctls = []struct{ name, value string }{
	{"bridge-nf-call-iptables", "1"},
	{"bridge-nf-call-ip6tables", "1"},
	{"bridge-nf-call-arptables", "0"},
	{"bridge-nf-filter-vlan-tagged", "1"},
}

// setSysctls sets them for the thread's network namespace. One that is right
// already is not written: /proc/sys may be read-only for the daemon.
func setSysctls() error {
	for _, sysctl := range bridgeSysctls {
		path := "/proc/sys/net/bridge/" + sysctl.name
		now, err := os.ReadFile(path)
		if errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("cannot have bridged packets held: %w: bridge netfilter is missing (modprobe br_netfilter)", err)
		}
		if err == nil && strings.TrimSpace(string(now)) == sysctl.value {
			continue
		}
		if err := os.WriteFile(path, []byte(sysctl.value), 0); err != nil {
			return fmt.Errorf("cannot have bridged packets held: %w: set net.bridge.%s=%s beforehand (sysctl.d), or give the daemon CAP_NET_ADMIN and a writable /proc/sys", err, sysctl.name, sysctl.value)
		}
	}
	return nil
}
