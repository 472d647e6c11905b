package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
)

// Namespace is a network namespace of a lab, which removes it.
type Namespace struct {
	name   string
	handle netns.NsHandle
	links  *netlink.Handle
	lab    *Lab
}

// NewNamespace makes a network namespace with its loopback up. The name, which
// must be new in the lab, becomes part of a longer one.
func (l *Lab) NewNamespace(name string) (*Namespace, error) {
	n := &Namespace{name: l.name + name, lab: l}
	if err := n.create(); err != nil {
		return nil, fmt.Errorf("cannot make network namespace %s: %w", n.name, err)
	}
	return n, nil
}

func (n *Namespace) create() (err error) {
	err = inNamespace(netns.None(), func() (err error) {
		// Registered first: NewNamed leaves a file where it fails half-way.
		n.lab.OnClose(func() error { return remove(n.Path()) })
		n.handle, err = netns.NewNamed(n.name)
		return err
	})
	if err != nil {
		return err
	}
	n.lab.OnClose(n.handle.Close)
	if n.links, err = netlink.NewHandleAt(n.handle); err != nil {
		return err
	}
	n.lab.OnClose(func() error { n.links.Close(); return nil })
	return n.SetUp("lo")
}

// Name returns the name as `ip netns` shows it.
func (n *Namespace) Name() string { return n.name }

// Path returns the file that stands for the namespace.
func (n *Namespace) Path() string { return filepath.Join(namespaceDir, n.name) }

// Netlink returns a handle that speaks to the namespace's kernel side from any
// goroutine. The lab closes it.
func (n *Namespace) Netlink() *netlink.Handle { return n.links }

// Do calls f on a thread that is in the namespace: sockets, netlink and files
// below /proc/sys/net that f opens belong to it, also later. Goroutines that f
// starts are not in it.
func (n *Namespace) Do(f func() error) error { return inNamespace(n.handle, f) }

// inNamespace runs f in a namespace (or where it is, when target is none) and
// comes back.
func inNamespace(target netns.NsHandle, f func() error) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	home, err := netns.Get()
	if err != nil {
		return fmt.Errorf("cannot tell the current network namespace: %w", err)
	}
	defer home.Close()
	defer func() {
		if err := netns.Set(home); err != nil {
			panic(fmt.Sprintf("cannot return to the network namespace: %v", err)) // everything after would go astray
		}
	}()
	if target.IsOpen() {
		if err := netns.Set(target); err != nil {
			return fmt.Errorf("cannot enter a network namespace: %w", err)
		}
	}
	return f()
}

// Command prepares a program to run in the namespace. Unlike `ip netns exec`
// it keeps the mounts, so that the program sees /sys/fs/bpf. The process that
// is started becomes the program itself, is asked to end (SIGTERM, and killed
// five seconds later) when the context does, and is killed should this process
// be, or the thread that started it. Do not start it within Do.
func (n *Namespace) Command(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "nsenter", append([]string{"--net=" + n.Path(), "--", name}, args...)...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 5 * time.Second
	return cmd
}

// Sysctl sets a value below /proc/sys/net, for instance
// "ipv6/conf/all/disable_ipv6".
func (n *Namespace) Sysctl(name, value string) error {
	err := n.Do(func() error { return os.WriteFile(filepath.Join("/proc/sys/net", name), []byte(value), 0o644) })
	if errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("this kernel has no net.%s: %w", name, err)
	}
	return err
}
