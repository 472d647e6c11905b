package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/vmgate/vmgate/internal/lab/control"
)

// agent runs what the host asks for. As process 1 it inherits every orphan of
// the guest, so it collects all exit statuses itself instead of leaving that
// to os/exec, which would lose children to the general wait.
type agent struct {
	port *os.File
	out  sync.Mutex // serialises messages

	mu       sync.Mutex // held over fork, so that no child is collected before it is known
	children map[int]chan unix.WaitStatus
	requests map[uint64]int // request to pid
}

func newAgent(port *os.File) *agent {
	return &agent{port: port, children: map[int]chan unix.WaitStatus{}, requests: map[uint64]int{}}
}

// serve answers requests until the channel breaks.
func (a *agent) serve(hello control.Reply) error {
	signals := make(chan os.Signal, 1) // one pending signal stands for any number of children
	signal.Notify(signals, unix.SIGCHLD)
	go a.collect(signals) // lives as long as the guest
	a.send(hello)
	lines := control.Reader(a.port)
	for lines.Scan() {
		var request control.Request
		if err := json.Unmarshal(lines.Bytes(), &request); err != nil {
			a.send(control.Reply{Kind: control.Done, Error: fmt.Sprintf("cannot read a request: %v", err)})
			continue
		}
		switch request.Op {
		case control.Run:
			go a.run(request)
		case control.Start:
			go a.start(request)
		case control.Kill:
			a.kill(request)
		}
	}
	if err := lines.Err(); err != nil {
		return err
	}
	return io.EOF
}

func (a *agent) send(reply control.Reply) {
	a.out.Lock()
	defer a.out.Unlock()
	if err := control.Write(a.port, reply); err != nil {
		fmt.Fprintln(os.Stderr, "lab:", err)
	}
}

// collect reaps children, those of others too, and tells who waits for one.
func (a *agent) collect(signals <-chan os.Signal) {
	for range signals {
		a.mu.Lock()
		for {
			var status unix.WaitStatus
			pid, err := unix.Wait4(-1, &status, unix.WNOHANG, nil)
			if errors.Is(err, unix.EINTR) {
				continue
			}
			if err != nil || pid <= 0 {
				break
			}
			if wait, ok := a.children[pid]; ok {
				delete(a.children, pid)
				wait <- status
			}
		}
		a.mu.Unlock()
	}
}

// fork starts a program with its standard output on the returned pipe and its
// standard error on the console.
func (a *agent) fork(id uint64, path string, argv []string) (int, *os.File, <-chan unix.WaitStatus, error) {
	null, err := os.Open(os.DevNull)
	if err != nil {
		return 0, nil, nil, err
	}
	defer null.Close()
	read, write, err := os.Pipe()
	if err != nil {
		return 0, nil, nil, err
	}
	defer write.Close()
	a.mu.Lock()
	defer a.mu.Unlock()
	pid, err := syscall.ForkExec(path, argv, &syscall.ProcAttr{
		Dir: "/", Env: os.Environ(), Files: []uintptr{null.Fd(), write.Fd(), 2},
		Sys: &syscall.SysProcAttr{Setpgid: true},
	})
	if err != nil {
		read.Close()
		return 0, nil, nil, fmt.Errorf("cannot start %q: %w", argv, err)
	}
	wait := make(chan unix.WaitStatus, 1)
	a.children[pid] = wait
	a.requests[id] = pid
	return pid, read, wait, nil
}

// run answers with the whole output of a program.
func (a *agent) run(request control.Request) {
	reply := control.Reply{ID: request.ID, Kind: control.Done}
	defer func() { a.send(reply) }()
	if len(request.Args) == 0 {
		reply.Error = "no program named"
		return
	}
	pid, output, wait, err := a.fork(request.ID, request.Args[0], request.Args)
	if err != nil {
		reply.Error = err.Error()
		return
	}
	defer output.Close()
	reply.PID = pid
	reply.Output, _ = io.ReadAll(io.LimitReader(output, control.MaxOutput))
	rest, _ := io.Copy(io.Discard, output)
	reply.Truncated = rest > 0
	reply.Exit = a.finish(request.ID, wait)
}

// start runs the workload under a name of its own: a hard link, so that both
// the process's comm and the path of its executable are that name.
func (a *agent) start(request control.Request) {
	reply := control.Reply{ID: request.ID, Kind: control.Done}
	defer func() { a.send(reply) }()
	path := filepath.Join(control.ProgramDir, filepath.Base(request.Name))
	if err := os.Link(control.WorkloadPath, path); err != nil && !errors.Is(err, os.ErrExist) {
		reply.Error = err.Error()
		return
	}
	pid, output, wait, err := a.fork(request.ID, path, append([]string{request.Name}, request.Args...))
	if err != nil {
		reply.Error = err.Error()
		return
	}
	defer output.Close()
	reply.PID = pid
	a.send(control.Reply{ID: request.ID, Kind: control.Started, PID: pid})
	lines := bufio.NewScanner(output)
	lines.Buffer(make([]byte, 0, 1024), control.MaxLine)
	for lines.Scan() {
		a.send(control.Reply{ID: request.ID, Kind: control.Line, Output: lines.Bytes()})
	}
	_, _ = io.Copy(io.Discard, output) // after a line over the limit
	reply.Exit = a.finish(request.ID, wait)
}

func (a *agent) finish(id uint64, wait <-chan unix.WaitStatus) int {
	status := <-wait
	a.mu.Lock()
	delete(a.requests, id)
	a.mu.Unlock()
	if status.Signaled() {
		return 128 + int(status.Signal())
	}
	return status.ExitStatus()
}

// kill signals the whole process group of a request.
func (a *agent) kill(request control.Request) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if pid, ok := a.requests[request.ID]; ok {
		_ = unix.Kill(-pid, unix.Signal(request.Signal))
	}
}
