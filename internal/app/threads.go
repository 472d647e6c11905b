package app

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// relist is how often the threads of a process are listed anew: an engine makes
// those that inspect before it is up.
const relist = time.Second

// threads looks at those threads of one process that inspect packets.
type threads struct {
	pid    int
	pidFD  int                // -1 where there is none
	device [directions]string // at the engine's ends
	all    []*thread
	listed time.Time
}

// thread is one of them, by its open files in /proc, which cost a tenth of opening
// them anew.
type thread struct {
	id          int
	name        string
	side        [directions]bool // the directions that it serves
	stat, sched int

	state  byte // R, S, D, T, t, Z, X: proc(5)
	ran    time.Duration
	waited time.Duration // for a processor
	turns  uint64        // that it was given one
}

func newThreads(pid int, device [directions]string) *threads {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		fd = -1 // gone, which shows when it is looked at
	}
	return &threads{pid: pid, pidFD: fd, device: device}
}

func (t *threads) close() {
	if t.pidFD >= 0 {
		unix.Close(t.pidFD)
	}
	t.closeFiles()
}

func (t *threads) closeFiles() {
	for _, th := range t.all {
		th.close()
	}
	t.all = nil
}

// wait waits for a time, or until the process ends, which it says.
func (t *threads) wait(d time.Duration) (ended bool) {
	if t == nil || t.pidFD < 0 {
		time.Sleep(d)
		return false
	}
	for deadline := time.Now().Add(d); ; {
		left := time.Until(deadline)
		if left <= 0 {
			return false
		}
		pause := unix.NsecToTimespec(left.Nanoseconds())
		n, err := unix.Ppoll([]unix.PollFd{{Fd: int32(t.pidFD), Events: unix.POLLIN}}, &pause, nil)
		if err == nil && n > 0 {
			return true
		}
	}
}

// look reads all of them. An error says that the process is gone, or that this
// kernel does not tell.
func (t *threads) look() error {
	if time.Since(t.listed) > relist {
		if err := t.list(); err != nil {
			return err
		}
	}
	gone := 0
	for _, th := range t.all {
		if err := th.look(); err != nil || th.state == 'Z' || th.state == 'X' {
			gone++
			t.listed = time.Time{} // list them anew next time
		}
	}
	// The end of a process takes its time, while its memory is freed.
	if gone > 0 && gone == len(t.all) {
		return errEnding
	}
	return nil
}

var errEnding = errors.New("the engine's threads have ended")

// list finds the threads that inspect. Suricata's workers bear their device's name;
// Snort's are all but the first. Where neither is so, all count.
func (t *threads) list() error {
	dir := fmt.Sprintf("/proc/%d/task", t.pid)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("cannot list the engine's threads: %w", err)
	}
	var all []*thread
	known := map[int]*thread{}
	for _, th := range t.all {
		known[th.id] = th
	}
	for _, e := range entries {
		id, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if th := known[id]; th != nil && th.state != 0 {
			delete(known, id)
			all = append(all, th)
			continue
		}
		if th := openThread(dir, id); th != nil {
			all = append(all, th)
		}
	}
	for _, th := range known {
		th.close()
	}
	t.all, t.listed = t.inspecting(all), time.Now()
	return nil
}

func openThread(dir string, id int) *thread {
	path := fmt.Sprintf("%s/%d/", dir, id)
	name, err := os.ReadFile(path + "comm")
	if err != nil {
		return nil
	}
	th := &thread{id: id, name: strings.TrimSpace(string(name))}
	if th.stat, err = unix.Open(path+"stat", unix.O_RDONLY|unix.O_CLOEXEC, 0); err != nil {
		return nil
	}
	if th.sched, err = unix.Open(path+"schedstat", unix.O_RDONLY|unix.O_CLOEXEC, 0); err != nil {
		unix.Close(th.stat)
		return nil
	}
	return th
}

// inspecting keeps those that inspect, and closes the others.
func (t *threads) inspecting(all []*thread) (workers []*thread) {
	is := func(th *thread) bool { return strings.HasPrefix(th.name, suricataWorker) }
	named := slices.ContainsFunc(all, is)
	if !named {
		is = func(th *thread) bool { return th.id != t.pid || len(all) == 1 }
	}
	for _, th := range all {
		if !is(th) {
			th.close()
			continue
		}
		for d, device := range t.device {
			// "W#01-ids-in-p", of 15 bytes at most.
			_, of, _ := strings.Cut(th.name, "-")
			th.side[d] = !named || of != "" && strings.HasPrefix(device, of)
		}
		workers = append(workers, th)
	}
	return workers
}

const suricataWorker = "W#"

func (th *thread) close() {
	unix.Close(th.stat)
	unix.Close(th.sched)
}

func (th *thread) look() error {
	var buf [512]byte
	n, err := unix.Pread(th.stat, buf[:], 0)
	if err != nil {
		th.state = 0
		return err
	}
	// "pid (comm) state …": the name may contain anything.
	if at := bytes.LastIndexByte(buf[:n], ')'); at >= 0 && at+2 < n {
		th.state = buf[at+2]
	}
	if n, err = unix.Pread(th.sched, buf[:], 0); err != nil {
		th.state = 0
		return err
	}
	// Nanoseconds run and waited, and turns: kernel, Documentation/scheduler/sched-stats.
	if _, err := fmt.Sscan(string(buf[:n]), &th.ran, &th.waited, &th.turns); err != nil {
		return fmt.Errorf("cannot tell how busy a thread is: %w", err)
	}
	return nil
}
