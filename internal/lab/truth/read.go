package truth

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// tables are those of /proc/PID/net that Read reads.
var tables = []string{"tcp", "tcp6", "udp", "udp6", "raw", "raw6", "icmp", "icmp6"}

// kernelThread is PF_KTHREAD of include/linux/sched.h.
const kernelThread = 0x00200000

// Read reads all of root, which is /proc. What ends while it is read is left out.
func Read(root string) (Truth, error) {
	t := Truth{Reader: os.Getpid(), Holders: make(map[uint64][]int)}
	dirs, err := filepath.Glob(root + "/[0-9]*")
	if err != nil {
		return t, err
	}
	spaces := make(map[uint32]string) // a process of each network namespace
	for _, dir := range dirs {
		p, err := readProcess(dir)
		if gone(err) {
			continue
		}
		if err != nil {
			return t, err
		}
		t.Processes = append(t.Processes, p)
		for _, inode := range sockets(dir) {
			if !slices.Contains(t.Holders[inode], p.PID) {
				t.Holders[inode] = append(t.Holders[inode], p.PID)
			}
		}
		if _, ok := spaces[p.NetNS]; !ok && p.NetNS != 0 {
			spaces[p.NetNS] = dir
		}
	}
	for space, dir := range spaces {
		for _, table := range tables {
			if t.Sockets, err = appendTable(t.Sockets, table, filepath.Join(dir, "net", table), space); err != nil {
				return t, err
			}
		}
	}
	for _, pids := range t.Holders {
		slices.Sort(pids)
	}
	return t, nil
}

// gone says whether an error means that the process has ended.
func gone(err error) bool { return errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ESRCH) }

func readProcess(dir string) (Process, error) {
	stat, err := os.ReadFile(dir + "/stat")
	if err != nil {
		return Process{}, err
	}
	p, err := parseStat(string(stat))
	if err != nil {
		return Process{}, err
	}
	status, err := os.ReadFile(dir + "/status")
	if err != nil {
		return Process{}, err
	}
	for line := range strings.Lines(string(status)) {
		if w := strings.Fields(line); len(w) >= 2 && w[0] == "Uid:" {
			if p.UID, err = strconv.Atoi(w[1]); err != nil {
				return p, err
			}
		}
	}
	line, err := os.ReadFile(dir + "/cmdline")
	if err != nil {
		return p, err
	}
	if len(line) > 0 {
		p.Args = strings.Split(strings.TrimSuffix(string(line), "\x00"), "\x00")
	}
	p.Path, _ = os.Readlink(dir + "/exe") // none of kernel threads and zombies
	p.NetNS, _ = namespace(dir)
	cgroups, _ := os.ReadFile(dir + "/cgroup")
	p.Cgroups = strings.Fields(string(cgroups))
	return p, nil
}

// parseStat reads what it can from a line of /proc/PID/stat (proc(5)).
func parseStat(line string) (p Process, err error) {
	open, end := strings.Index(line, " ("), strings.LastIndex(line, ") ")
	if open < 0 || end < open {
		return p, fmt.Errorf("not a stat line: %q", line)
	}
	p.Name = line[open+2 : end]
	w := strings.Fields(line[end+2:])
	if len(w) < 20 {
		return p, fmt.Errorf("not a stat line: %q", line)
	}
	number := func(s string) (n uint64) {
		var failed error
		n, failed = strconv.ParseUint(s, 10, 64)
		err = errors.Join(err, failed)
		return n
	}
	p.PID, p.PPID, p.Ticks = int(number(line[:open])), int(number(w[1])), number(w[19])
	p.Kernel, p.Threads = number(w[6])&kernelThread != 0, int(number(w[17]))
	return p, err
}

// namespace reads the number of a process's network namespace: "net:[4026531992]".
func namespace(dir string) (uint32, error) {
	link, err := os.Readlink(dir + "/ns/net")
	if err != nil {
		return 0, err
	}
	n, err := strconv.ParseUint(strings.TrimSuffix(strings.TrimPrefix(link, "net:["), "]"), 10, 32)
	return uint32(n), err
}

// sockets lists the inodes of a process's sockets.
func sockets(dir string) []uint64 {
	var out []uint64
	fds, _ := os.ReadDir(dir + "/fd")
	for _, fd := range fds {
		link, err := os.Readlink(filepath.Join(dir, "fd", fd.Name()))
		if err != nil || !strings.HasPrefix(link, "socket:[") {
			continue
		}
		if n, err := strconv.ParseUint(link[len("socket:["):len(link)-1], 10, 64); err == nil {
			out = append(out, n)
		}
	}
	return out
}

// appendTable reads one table; a protocol that is not there has none.
func appendTable(out []Socket, table, path string, space uint32) ([]Socket, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		if gone(err) {
			err = nil
		}
		return out, err
	}
	for line := range strings.Lines(string(text)) {
		w := strings.Fields(line)
		if len(w) < 10 || w[0] == "sl" {
			continue
		}
		s := Socket{Table: table, NetNS: space}
		var errs [4]error
		s.Local, errs[0] = parseAddress(w[1])
		s.Remote, errs[1] = parseAddress(w[2])
		state, err := strconv.ParseUint(w[3], 16, 8)
		s.State, errs[2] = int(state), err
		s.Inode, errs[3] = strconv.ParseUint(w[9], 10, 64)
		if err := errors.Join(errs[:]...); err != nil {
			return out, fmt.Errorf("%s: %q: %w", path, line, err)
		}
		out = append(out, s)
	}
	return out, nil
}

// parseAddress reads the kernel's notation: 32-bit words in host order, in hex,
// and the port.
func parseAddress(s string) (netip.AddrPort, error) {
	host, port, _ := strings.Cut(s, ":")
	raw, err := hex.DecodeString(host)
	if err != nil {
		return netip.AddrPort{}, err
	}
	for i := 0; i+4 <= len(raw); i += 4 {
		slices.Reverse(raw[i : i+4])
	}
	addr, ok := netip.AddrFromSlice(raw)
	p, err := strconv.ParseUint(port, 16, 16)
	if err == nil && !ok {
		err = errors.New("no address")
	}
	return netip.AddrPortFrom(addr.Unmap(), uint16(p)), err
}
