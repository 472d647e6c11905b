package config

import (
	"net"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Bounds of names and counts. They are those of the kernel and of the fixed
// fields and maps in bpf/types.h, which the daemon fills from the configuration.
const (
	maxName     = 31 // bytes: vm.name
	maxRuleName = 47 // bytes: rule.name
	maxDevice   = 15 // bytes: IFNAMSIZ without the final NUL
	maxSegments = 60
	maxVMs      = 4095 // with the routers; id 0 is none
	maxRules    = 2000 // at reload the old and the new policy stand side by side
	maxEngines  = 8    // MAX_IDS
	maxSockPath = 107  // bytes: sun_path without the final NUL
)

// SocketName is the name of the daemon's socket in Gateway.Run.
const SocketName = "gatewayd.sock"

// checker checks a decoded configuration. Problems go to src, by path.
type checker struct {
	*Config
	segments map[string]*Segment
	ids      map[string]string // of VMs and routers, to the path of the entry
	macs     map[MAC]string
	addrs    map[addrIn]string
}

// validate notes every problem that can be seen without looking at the machine.
func validate(c *Config) {
	v := &checker{
		Config:   c,
		segments: map[string]*Segment{}, ids: map[string]string{},
		macs: map[MAC]string{}, addrs: map[addrIn]string{},
	}
	v.oneOf("enforcement", c.Enforcement, "enforce", "monitor")
	v.checkGateway()
	v.checkSegments()
	v.checkInventory()
	v.checkPolicy()
	v.checkLists()
	v.checkIDS()
	v.checkVMRules()
	v.oneOf("failure.daemon", c.Failure.Daemon, "closed", "open")
	v.oneOf("failure.ids", c.Failure.IDS, "closed", "open")
	v.oneOf("failure.introspection", c.Failure.Introspection, "check", "forward", "drop")
	v.oneOf("failure.no-owner", c.Failure.NoOwner, "check", "forward", "drop")
	v.checkDecision()
	v.checkOutput()
}

func (v *checker) report(path, format string, args ...any) { v.src.report(path, format, args...) }

func (v *checker) checkGateway() {
	g := &v.Gateway
	for _, dir := range []struct{ path, value string }{
		{"gateway.pins", g.Pins}, {"gateway.state", g.State}, {"gateway.run", g.Run},
	} {
		if !filepath.IsAbs(dir.value) {
			v.report(dir.path, "%s: %q is not absolute: begin it with /", dir.path, dir.value)
		}
	}
	if socket := filepath.Join(g.Run, SocketName); len(socket) > maxSockPath {
		v.report("gateway.run", "gateway.run: the socket's path would have %d bytes, and a unix socket's can have %d: choose a shorter directory",
			len(socket), maxSockPath)
	}
}

func (v *checker) checkDecision() {
	d := &v.Decision
	v.betweenDurations("decision.deadline", d.Deadline, time.Millisecond, 10*time.Second)
	v.betweenDurations("decision.attribution-age", d.AttributionAge, time.Millisecond, time.Hour)
	v.betweenDurations("decision.scan", d.Scan, 10*time.Millisecond, time.Hour)
	v.between("decision.hidden-samples", d.HiddenSamples, 1, 100)
	v.between("decision.queues", d.Queues, 1, 64)
	v.between("decision.queue-base", d.QueueBase, 0, 65535)
	if last := d.QueueBase + d.Queues - 1; last > 65535 {
		v.report("decision.queue-base", "decision.queue-base: the last of %d queues would be number %d, and 65535 is the highest", d.Queues, last)
	}
	v.between("decision.held-per-flow", d.HeldPerFlow, 1, 64)
	v.between("decision.held-per-vm", d.HeldPerVM, 1, 65536)
	v.between("decision.flows-per-vm", d.FlowsPerVM, 1, 1<<20)
}

func (v *checker) checkOutput() {
	if v.Metrics.Listen != "" {
		_, port, err := net.SplitHostPort(v.Metrics.Listen)
		if n, perr := strconv.ParseUint(port, 10, 16); err != nil || perr != nil || n == 0 {
			v.report("metrics.listen", "metrics.listen: %q is no address to listen on: write 127.0.0.1:9110", v.Metrics.Listen)
		}
	}
	if v.Events.File != "" && !filepath.IsAbs(v.Events.File) {
		v.report("events.file", "events.file: %q is not absolute: begin it with /", v.Events.File)
	}
	if v.Events.MaxSize < 4096 {
		v.report("events.max-size", "events.max-size: %d is less than 4096 bytes", v.Events.MaxSize)
	}
}

func (v *checker) oneOf(path, value string, allowed ...string) {
	if !slices.Contains(allowed, value) {
		last := len(allowed) - 1
		want := strings.Join(allowed[:last], ", ") + " or " + allowed[last]
		v.report(path, "%s: unknown value %q: want %s", path, value, want)
	}
}

func (v *checker) between(path string, value, low, high int) {
	if value < low || value > high {
		v.report(path, "%s: %d is not between %d and %d", path, value, low, high)
	}
}

func (v *checker) betweenDurations(path string, value, low, high time.Duration) {
	if value < low || value > high {
		v.report(path, "%s: %s is not between %s and %s", path, value, low, high)
	}
}

var wellFormed = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]*$`)

// checkName checks a name that rules, maps and commands use.
func (v *checker) checkName(path, name string, limit int) {
	switch {
	case name == "":
		v.report(path, "%s is missing", path)
	case len(name) > limit:
		v.report(path, "%s: %q has %d bytes: at most %d", path, name, len(name), limit)
	case !wellFormed.MatchString(name):
		v.report(path, "%s: %q is no name: letters, digits, and . _ - after the first", path, name)
	}
}

// checkUnique notes value as used at path, and reports one that was used before.
func checkUnique[K comparable](v *checker, used map[K]string, path string, value K, what string) {
	if first, twice := used[value]; twice {
		v.report(path, "%s is given twice, first in line %d (%s)", what, v.src.find(first).line, first)
		return
	}
	used[value] = path
}
