// Package qemu finds the QEMU machines that run on this host and opens their
// guests' memory, by the best way that each offers. It changes nothing in them.
package qemu

import (
	"path/filepath"
	"slices"
	"strings"
)

// Machine is a QEMU process as its command line shows it. Who runs it chooses
// that: a name proves nothing about a process of a user who is not trusted.
type Machine struct {
	PID      int      `json:"pid"`
	Started  uint64   `json:"started"` // in clock ticks since the host's boot; with PID it names one process
	UID      uint32   `json:"uid"`     // effective
	Name     string   `json:"name"`    // of -name; empty if there is none
	UUID     string   `json:"uuid,omitempty"`
	Type     string   `json:"machine"`                    // "q35", "pc-i440fx-7.2", …
	RAM      uint64   `json:"ram"`                        // bytes, as it was started
	Backing  Backing  `json:"backing"`                    // of RAM
	File     string   `json:"memory_file,omitempty"`      // the file, where that is Backing
	Monitors []string `json:"monitors,omitempty"`         // sockets of monitors in control mode that its command line names
	Libvirt  []string `json:"libvirt_monitors,omitempty"` // sockets of libvirt's, which is their client
}

// Backing is what keeps a guest's RAM.
type Backing string

// The kinds of backing.
const (
	SharedFile Backing = "file"    // a shared memory file
	MemFD      Backing = "memfd"   // a shared file without a name
	Private    Backing = "private" // QEMU's own memory
	Several    Backing = "several" // as NUMA nodes have; only a monitor tells
)

// programs are the names by which QEMU is started.
var programs = []string{"qemu-system-x86_64", "qemu-kvm", "kvm"}

// parseCommandLine reads what a machine is from its arguments; ok is false if
// they are not QEMU's. Only what it needs is looked at.
func parseCommandLine(args []string) (m Machine, ok bool) {
	if len(args) == 0 || !slices.Contains(programs, filepath.Base(args[0])) {
		return Machine{}, false
	}
	c := commandLine{
		machine:  options{},
		objects:  map[string]options{},
		chardevs: map[string]options{},
		m:        Machine{Type: "pc", RAM: 128 << 20, Backing: Private}, // QEMU's own defaults
	}
	for i := 1; i+1 < len(args); i++ {
		name, isOption := strings.CutPrefix(args[i], "-")
		if !isOption {
			continue
		}
		if c.take(strings.TrimPrefix(name, "-"), args[i+1]) {
			i++
		}
	}
	return c.finish(), true
}

// commandLine collects the options that describe a machine.
type commandLine struct {
	m                 Machine
	machine           options
	objects, chardevs map[string]options // by id
	monitors, nodes   []string           // chardevs and backends that are named
	memPath           bool
}

// take looks at one option and says whether it has used its argument.
func (c *commandLine) take(name, argument string) bool {
	switch name {
	case "name":
		c.m.Name = parseOptions(argument, "guest")["guest"]
	case "uuid":
		c.m.UUID = argument
	case "machine", "M":
		for key, value := range parseOptions(argument, "type") {
			c.machine[key] = value
		}
	case "m":
		c.m.RAM = parseSize(parseOptions(argument, "size")["size"], 1<<20)
	case "object":
		o := parseOptions(argument, "qom-type")
		c.objects[o["id"]] = o
	case "numa":
		if o := parseOptions(argument, "type"); o["memdev"] != "" {
			c.nodes = append(c.nodes, o["memdev"])
		}
	case "mem-path":
		c.memPath = true
	case "qmp", "qmp-pretty":
		if path, ok := strings.CutPrefix(argument, "unix:"); ok {
			c.m.Monitors = append(c.m.Monitors, splitComma(path)[0])
		}
	case "chardev":
		o := parseOptions(argument, "backend")
		c.chardevs[o["id"]] = o
	case "mon":
		if o := parseOptions(argument, "chardev"); o["mode"] == "control" {
			c.monitors = append(c.monitors, o["chardev"])
		}
	default:
		return false
	}
	return true
}

func (c *commandLine) finish() Machine {
	m := c.m
	if t := c.machine["type"]; t != "" {
		m.Type = t
	}
	for _, id := range c.monitors {
		if o := c.chardevs[id]; o["backend"] == "socket" && o["path"] != "" {
			m.Monitors = append(m.Monitors, o["path"])
		}
	}
	backend := c.machine["memory-backend"]
	if backend == "" && len(c.nodes) == 1 {
		backend = c.nodes[0]
	}
	if len(c.nodes) > 1 {
		m.Backing = Several
		return m
	}
	switch o := c.objects[backend]; o["qom-type"] {
	case "memory-backend-file":
		if o.is("share", false) {
			m.Backing, m.File = SharedFile, o["mem-path"]
		}
	case "memory-backend-memfd":
		if o.is("share", true) {
			m.Backing = MemFD
		}
	}
	return m
}
