package punt

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// holder names the process that holds a queue in the thread's network namespace,
// or returns "" if nobody does or it cannot be told.
func holder(number uint16) string {
	f, err := openQueueTable()
	if err != nil {
		return ""
	}
	defer f.Close()
	lines, err := readQueueTable(f)
	if err != nil {
		return ""
	}
	for _, line := range lines {
		if line.number == int(number) {
			return processOf(netlinkInode(line.portID))
		}
	}
	return ""
}

func orUnknown(name string) string {
	if name == "" {
		return "another process"
	}
	return name
}

// netlinkInode finds the netfilter netlink socket of a port id: the columns of
// /proc/net/netlink are sk, protocol, port id, …, inode.
func netlinkInode(portID uint32) string {
	f, err := os.Open("/proc/thread-self/net/netlink")
	if err != nil {
		return ""
	}
	defer f.Close()
	scanner := bufio.NewScanner(f)
	for scanner.Scan() {
		fields := strings.Fields(scanner.Text())
		if len(fields) >= 10 && fields[1] == strconv.Itoa(unix.NETLINK_NETFILTER) &&
			fields[2] == strconv.FormatUint(uint64(portID), 10) {
			return fields[9]
		}
	}
	return ""
}

// processOf finds the process that has the socket open.
func processOf(inode string) string {
	if inode == "" {
		return ""
	}
	fds, _ := filepath.Glob("/proc/[0-9]*/fd/*") // a process that has gone meanwhile is not it
	for _, fd := range fds {
		if target, err := os.Readlink(fd); err != nil || target != "socket:["+inode+"]" {
			continue
		}
		dir := filepath.Dir(filepath.Dir(fd))
		comm, _ := os.ReadFile(filepath.Join(dir, "comm"))
		return fmt.Sprintf("process %s (%s)", filepath.Base(dir), strings.TrimSpace(string(comm)))
	}
	return ""
}
