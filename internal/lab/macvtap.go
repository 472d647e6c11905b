package lab

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// openMacvtap opens the character device of a macvtap interface. /dev may not
// have it, or have one of the same name from another namespace, so the node is
// made here and removed as soon as it is open.
func (n *Namespace) openMacvtap(name string) (*os.File, error) {
	device, err := n.macvtapDevice(name)
	if err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp("", Prefix()+"tap-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	node := filepath.Join(dir, name)
	if err := unix.Mknod(node, unix.S_IFCHR|0o600, int(device)); err != nil {
		return nil, fmt.Errorf("cannot make its device node: %w", err)
	}
	return os.OpenFile(node, os.O_RDWR|unix.O_NONBLOCK, 0)
}

// macvtapDevice reads the device's number, which is only in the sysfs of its
// network namespace. `ip netns exec` mounts that, in another process: a thread
// of this one could never take back such a mount, and were it the main thread,
// all of /proc/self would show it.
func (n *Namespace) macvtapDevice(name string) (uint64, error) {
	link, err := n.links.LinkByName(name)
	if err != nil {
		return 0, err
	}
	path := fmt.Sprintf("/sys/class/net/%s/macvtap/tap%d/dev", name, link.Attrs().Index)
	text, err := exec.Command("ip", "netns", "exec", n.name, "cat", path).CombinedOutput()
	if err != nil {
		return 0, fmt.Errorf("cannot read its device number: %w: %s", err, text)
	}
	var major, minor uint32
	if _, err := fmt.Sscanf(string(text), "%d:%d", &major, &minor); err != nil {
		return 0, fmt.Errorf("cannot read its device number %q: %w", text, err)
	}
	return unix.Mkdev(major, minor), nil
}
