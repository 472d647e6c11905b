// Package control is the line protocol between a test host and the agent that
// runs as process 1 of a lab guest. Each message is one JSON object on a line,
// over the guest's second serial port. The package holds only what both ends
// need; the host end is in package lab, the guest end in the workload program.
package control

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net/netip"
)

// Limits of the protocol. Both ends refuse what is longer.
const (
	MaxMessage = 1 << 20   // bytes of one encoded message
	MaxOutput  = 512 << 10 // bytes of standard output that one run returns
	MaxLine    = 8 << 10   // bytes of one output line of a started process
)

// Paths in the guest that both ends know.
const (
	SetupPath    = "/etc/lab.json" // a Setup, read by the agent when the guest boots
	ModulesDir   = "/lib/lab"      // the kernel modules that Setup names
	WorkloadPath = "/bin/workload"
	ProgramDir   = "/usr/bin" // where a started process gets its name; empty at boot
	Device       = "/dev/ttyS1"
)

// Setup is what a guest is told of itself at boot.
type Setup struct {
	Name    string   // host name
	Modules []string // file names below ModulesDir
	NICs    []NIC
}

// NIC is the configuration of one interface, found by its MAC address.
type NIC struct {
	MAC       string // lower case, colons
	MTU       int    // 0: the kernel's default
	Addresses []netip.Prefix
	Gateways  []netip.Addr // default routes, at most one a family
}

// Op is what the host asks of the agent.
type Op string

// The operations.
const (
	Run   Op = "run"   // run Args to its end, answer with its output
	Start Op = "start" // start Args under the name Name, answer with its pid, then line by line
	Kill  Op = "kill"  // send Signal to the process of request ID
)

// Request is one message from the host.
type Request struct {
	ID     uint64 // chosen by the host; repeated in every message about it
	Op     Op
	Name   string   `json:",omitempty"` // Start: the process's comm and the name of its file in ProgramDir
	Args   []string `json:",omitempty"` // Run: a whole argv; Start: the workload's arguments
	Signal int      `json:",omitempty"`
}

// Kind tells what a Reply is about.
type Kind string

// The kinds of reply. Hello is sent once, when the guest is up.
const (
	Hello   Kind = "hello"
	Started Kind = "started"
	Line    Kind = "line"
	Done    Kind = "done"
)

// Reply is one message from the agent.
type Reply struct {
	ID        uint64
	Kind      Kind
	PID       int    `json:",omitempty"`
	Exit      int    `json:",omitempty"` // exit status; 128 + signal where one ended it, as shells count
	Output    []byte `json:",omitempty"` // Done of a Run: standard output; Line: one line without its end
	Truncated bool   `json:",omitempty"` // Output was longer than its limit
	Error     string `json:",omitempty"` // why the request failed, or what went wrong at boot
}

// Reader returns a line reader that refuses messages over MaxMessage.
func Reader(r io.Reader) *bufio.Scanner {
	s := bufio.NewScanner(r)
	s.Buffer(make([]byte, 0, 64<<10), MaxMessage)
	return s
}

// Write sends one message. Callers serialise.
func Write(w io.Writer, message any) error {
	line, err := json.Marshal(message)
	if err != nil {
		return fmt.Errorf("cannot encode a control message: %w", err)
	}
	if len(line) >= MaxMessage {
		return fmt.Errorf("cannot send a control message of %d bytes: the limit is %d", len(line), MaxMessage)
	}
	if _, err := w.Write(append(line, '\n')); err != nil {
		return fmt.Errorf("cannot send a control message: %w", err)
	}
	return nil
}
