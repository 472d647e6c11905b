package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/vmgate/vmgate/internal/lab/control"
)

// boot is process 1 of a guest: it mounts, loads the modules, configures the
// interfaces, and then serves the control channel until the guest is killed.
// What went wrong is told to the host in the hello message.
func boot() {
	port, err := openControl()
	if err != nil {
		fmt.Fprintln(os.Stderr, "lab:", err)
		halt()
	}
	hello := control.Reply{Kind: control.Hello, PID: os.Getpid()}
	if err := setUp(); err != nil {
		hello.Error = err.Error()
	}
	if err := newAgent(port).serve(hello); err != nil {
		fmt.Fprintln(os.Stderr, "lab: the control channel ended:", err)
	}
	halt()
}

// halt ends the guest: process 1 must not return.
func halt() {
	unix.Sync()
	_ = unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART)
	select {}
}

// reset resets the machine as it is.
func reset(context.Context, []string) error {
	return unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART)
}

// openControl makes the second serial port a plain byte stream. /dev is
// mounted here, for nothing can be said before.
func openControl() (*os.File, error) {
	if err := unix.Mount("dev", "/dev", "devtmpfs", 0, ""); err != nil {
		return nil, fmt.Errorf("cannot mount /dev: %w", err)
	}
	port, err := os.OpenFile(control.Device, os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		return nil, fmt.Errorf("cannot open the control port: %w", err)
	}
	fd := int(port.Fd())
	state, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		return nil, fmt.Errorf("cannot read the control port's state: %w", err)
	}
	// As cfmakeraw(3), and no modem control.
	state.Iflag &^= unix.IGNBRK | unix.BRKINT | unix.PARMRK | unix.ISTRIP | unix.INLCR | unix.IGNCR | unix.ICRNL | unix.IXON
	state.Oflag &^= unix.OPOST
	state.Lflag &^= unix.ECHO | unix.ECHONL | unix.ICANON | unix.ISIG | unix.IEXTEN
	state.Cflag = state.Cflag&^(unix.CSIZE|unix.PARENB|unix.CBAUD) | unix.CS8 | unix.CLOCAL | unix.CREAD | unix.B115200
	state.Cc[unix.VMIN], state.Cc[unix.VTIME] = 1, 0
	if err := unix.IoctlSetTermios(fd, unix.TCSETS, state); err != nil {
		return nil, fmt.Errorf("cannot make the control port raw: %w", err)
	}
	return port, nil
}

// setUp does everything else, as far as it gets.
func setUp() error {
	var errs []error
	for _, m := range []struct{ source, target, kind string }{
		{"proc", "/proc", "proc"}, {"sys", "/sys", "sysfs"}, {"tmp", "/tmp", "tmpfs"},
	} {
		if err := unix.Mount(m.source, m.target, m.kind, 0, ""); err != nil {
			errs = append(errs, fmt.Errorf("cannot mount %s: %w", m.target, err))
		}
	}
	var setup control.Setup
	text, err := os.ReadFile(control.SetupPath)
	if err == nil {
		err = json.Unmarshal(text, &setup)
	}
	if err != nil {
		return errors.Join(append(errs, fmt.Errorf("cannot read the guest's set-up: %w", err))...)
	}
	_ = os.Setenv("PATH", "/bin:/sbin")
	_ = os.Setenv("HOME", "/")
	errs = append(errs, unix.Sethostname([]byte(setup.Name)))
	errs = append(errs, loadModules(setup.Modules))
	errs = append(errs, ip("link", "set", "lo", "up"))
	for _, nic := range setup.NICs {
		errs = append(errs, configure(nic))
	}
	return errors.Join(errs...)
}

// loadModules loads what can be loaded until nothing more can: which module
// needs which differs from kernel to kernel.
func loadModules(names []string) error {
	for {
		var failed []string
		var errs []error
		for _, name := range names {
			if err := loadModule(filepath.Join(control.ModulesDir, name)); err != nil {
				failed, errs = append(failed, name), append(errs, err)
			}
		}
		if len(failed) == 0 || len(failed) == len(names) {
			return errors.Join(errs...)
		}
		names = failed
	}
}

func loadModule(path string) error {
	file, err := os.Open(path)
	if err != nil {
		return fmt.Errorf("cannot open a module: %w", err)
	}
	defer file.Close()
	if err := unix.FinitModule(int(file.Fd()), "", 0); err != nil && !errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("cannot load %s: %w", path, err)
	}
	return nil
}

// configure brings one interface up. Duplicate address detection is off: it
// would cost each boot a second, and the lab hands out the addresses.
func configure(nic control.NIC) error {
	name, err := interfaceByMAC(nic.MAC)
	if err != nil {
		return err
	}
	sysctl := "/proc/sys/net/ipv6/conf/" + name + "/"
	errs := []error{
		os.WriteFile(sysctl+"accept_dad", []byte("0"), 0),
		os.WriteFile(sysctl+"accept_ra", []byte("0"), 0),
	}
	if nic.MTU > 0 {
		errs = append(errs, ip("link", "set", name, "mtu", strconv.Itoa(nic.MTU)))
	}
	errs = append(errs, ip("link", "set", name, "up"))
	for _, address := range nic.Addresses {
		errs = append(errs, ip("addr", "add", address.String(), "dev", name))
	}
	for _, gateway := range nic.Gateways {
		family := "-4"
		if gateway.Is6() {
			family = "-6"
		}
		errs = append(errs, ip(family, "route", "add", "default", "via", gateway.String(), "dev", name))
	}
	return errors.Join(errs...)
}

func interfaceByMAC(mac string) (string, error) {
	all, err := net.Interfaces()
	if err != nil {
		return "", fmt.Errorf("cannot list interfaces: %w", err)
	}
	for _, one := range all {
		if one.HardwareAddr.String() == mac {
			return one.Name, nil
		}
	}
	return "", fmt.Errorf("there is no interface with MAC %s", mac)
}

func ip(args ...string) error {
	if out, err := exec.Command("/bin/ip", args...).CombinedOutput(); err != nil {
		return fmt.Errorf("ip %q: %w: %s", args, err, out)
	}
	return nil
}
