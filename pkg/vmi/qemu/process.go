package qemu

import (
	"errors"
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// Process is a hold on one process: unlike its number it never means another.
type Process struct {
	fd  int
	pid int
}

// errEnded: the machine was switched off.
var errEnded = errors.New("its QEMU has ended")

// Hold takes a hold on the machine's process, if that is still the one that was
// found. The caller releases it.
func (m Machine) Hold() (*Process, error) {
	fd, err := unix.PidfdOpen(m.PID, 0)
	if err != nil {
		return nil, fmt.Errorf("cannot hold on to process %d: %w", m.PID, err)
	}
	p := &Process{fd: fd, pid: m.PID}
	started, err := startOf("/proc/" + strconv.Itoa(m.PID))
	if err != nil || started != m.Started {
		p.Release()
		return nil, fmt.Errorf("cannot hold on to process %d: %w", m.PID, errEnded)
	}
	return p, nil
}

// Alive says whether the process still runs.
func (p *Process) Alive() bool {
	poll := []unix.PollFd{{Fd: int32(p.fd), Events: unix.POLLIN}}
	n, err := unix.Poll(poll, 0)
	return err == nil && n == 0 || errors.Is(err, unix.EINTR)
}

// Release ends the hold.
func (p *Process) Release() { _ = unix.Close(p.fd) }

// mapping is a piece of a process's address space (proc(5), /proc/PID/maps).
type mapping struct {
	from, to, offset uint64
	shared           bool
	major, minor     uint32
	inode            uint64
}

// descriptorOf finds a descriptor of the process that leads to the file behind a
// mapping, and returns its path under /proc.
func descriptorOf(pid int, at mapping) (string, error) {
	dir := "/proc/" + strconv.Itoa(pid) + "/fd"
	d, err := os.Open(dir)
	if err != nil {
		return "", err
	}
	defer d.Close()
	names, err := d.Readdirnames(maxProcesses)
	if err != nil {
		return "", err
	}
	for _, name := range names {
		var st unix.Stat_t
		path := dir + "/" + name
		if unix.Stat(path, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFREG && st.Ino == at.inode &&
			unix.Major(st.Dev) == at.major && unix.Minor(st.Dev) == at.minor {
			return path, nil
		}
	}
	return "", errors.New("none of its descriptors leads to the memory file")
}
