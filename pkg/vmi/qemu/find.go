package qemu

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Bounds of what is read of a process, which anybody may have started.
const (
	maxCommandLine = 1 << 20
	maxProcesses   = 1 << 16
)

// libvirtRuns is where libvirt keeps the monitors' sockets of its machines, in
// directories domain-ID-NAME (src/qemu/qemu_domain.c there).
const libvirtRuns = "/var/lib/libvirt/qemu"

// Find lists the machines that run on this host, by pid. It reads only what
// every user may read of any process, so that it needs no privilege, unless /proc is
// mounted with hidepid.
func Find() ([]Machine, error) {
	dir, err := os.Open("/proc")
	if err != nil {
		return nil, fmt.Errorf("cannot look for machines: %w", err)
	}
	defer dir.Close()
	names, err := dir.Readdirnames(maxProcesses)
	if err != nil {
		return nil, fmt.Errorf("cannot look for machines: %w", err)
	}
	var out []Machine
	for _, name := range names {
		pid, err := strconv.Atoi(name)
		if err != nil {
			continue
		}
		if m, err := Inspect(pid); err == nil {
			out = append(out, m)
		}
	}
	slices.SortFunc(out, func(a, b Machine) int { return a.PID - b.PID })
	return out, nil
}

// ErrNoMachine: the process is none of QEMU's, or not there.
var ErrNoMachine = errors.New("no QEMU machine")

// Inspect says which machine a process is.
func Inspect(pid int) (Machine, error) {
	dir := "/proc/" + strconv.Itoa(pid)
	started, err := startOf(dir)
	if err != nil {
		return Machine{}, fmt.Errorf("process %d is %w: %w", pid, ErrNoMachine, err)
	}
	text, err := readSome(dir+"/cmdline", maxCommandLine)
	if err != nil {
		return Machine{}, fmt.Errorf("process %d is %w: %w", pid, ErrNoMachine, err)
	}
	m, ok := parseCommandLine(strings.Split(strings.TrimSuffix(string(text), "\x00"), "\x00"))
	if !ok {
		return Machine{}, fmt.Errorf("process %d is %w", pid, ErrNoMachine)
	}
	status, err := readSome(dir+"/status", 64<<10)
	if err != nil {
		return Machine{}, fmt.Errorf("process %d is %w: %w", pid, ErrNoMachine, err)
	}
	m.PID, m.Started, m.UID = pid, started, uidOf(status)
	if m.Name != "" {
		m.Libvirt, _ = filepath.Glob(filepath.Join(libvirtRuns, "domain-*-"+escapeGlob(m.Name), "monitor.sock"))
	}
	return m, nil
}

func escapeGlob(s string) string {
	return strings.NewReplacer(`\`, `\\`, "*", `\*`, "?", `\?`, "[", `\[`, "/", "?").Replace(s)
}

// ByName finds the one machine of a name that one of the users runs, or anybody if
// there are none. Two of one name are an error: one of them may want to be taken for
// the other.
func ByName(name string, users ...uint32) (Machine, error) {
	all, err := Find()
	if err != nil {
		return Machine{}, err
	}
	var found, strangers []Machine
	for _, m := range all {
		switch {
		case m.Name != name:
		case len(users) > 0 && !slices.Contains(users, m.UID):
			strangers = append(strangers, m)
		default:
			found = append(found, m)
		}
	}
	switch {
	case len(found) == 1:
		return found[0], nil
	case len(found) > 1:
		return Machine{}, fmt.Errorf("%d QEMU machines are called %q (processes %d and %d)", len(found), name, found[0].PID, found[1].PID)
	case len(strangers) > 0:
		return Machine{}, fmt.Errorf("%w that can be believed is called %q here: process %d is of user %d", ErrNoMachine, name, strangers[0].PID, strangers[0].UID)
	}
	return Machine{}, fmt.Errorf("%w is called %q here", ErrNoMachine, name)
}

// Users gives the ids of users who are there.
func Users(names ...string) []uint32 {
	var out []uint32
	for _, name := range names {
		u, err := user.Lookup(name)
		if err != nil {
			continue
		}
		if uid, err := strconv.ParseUint(u.Uid, 10, 32); err == nil {
			out = append(out, uint32(uid))
		}
	}
	return out
}

// ByPIDFile finds the machine whose pid QEMU has written to a file (-pidfile).
func ByPIDFile(path string) (Machine, error) {
	text, err := readSome(path, 64)
	if err != nil {
		return Machine{}, fmt.Errorf("cannot read the pid file: %w", err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil || pid <= 0 {
		return Machine{}, fmt.Errorf("%s holds no pid", path)
	}
	return Inspect(pid)
}

// startOf is when a process started: field 22 of its stat, where the name, which
// may contain anything, ends with the last bracket (proc(5)).
func startOf(dir string) (uint64, error) {
	stat, err := readSome(dir+"/stat", 4096)
	if err != nil {
		return 0, err
	}
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	if len(fields) < 20 {
		return 0, errors.New("its stat makes no sense")
	}
	return strconv.ParseUint(fields[19], 10, 64)
}

// uidOf is the effective user id in a process's status.
func uidOf(status []byte) uint32 {
	for line := range strings.Lines(string(status)) {
		if rest, ok := strings.CutPrefix(line, "Uid:"); ok {
			if fields := strings.Fields(rest); len(fields) > 1 {
				if uid, err := strconv.ParseUint(fields[1], 10, 32); err == nil {
					return uint32(uid)
				}
			}
		}
	}
	return ^uint32(0) // nobody's
}

// readSome reads a small file of /proc; one that has more is cut off.
func readSome(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return io.ReadAll(io.LimitReader(f, limit))
}
