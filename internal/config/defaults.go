package config

import (
	"cmp"
	"time"
)

// defaults is the configuration of an empty file.
func defaults() *Config {
	return &Config{
		Enforcement: "enforce",
		Gateway:     Gateway{Pins: "/sys/fs/bpf/vmgate", State: "/var/lib/vmgate", Run: "/run/vmgate"},
		Policy:      Policy{Default: "deny"},
		IDS:         IDS{Instances: 1, Threads: 1, Convict: []AlertRule{{Action: "drop", Then: "convict"}, {Action: "reject", Then: "convict"}}},
		Failure:     Failure{Daemon: "closed", IDS: "closed", Introspection: "check", NoOwner: "check"},
		Decision: Decision{
			Deadline:       200 * time.Millisecond,
			AttributionAge: 2 * time.Second,
			HiddenSamples:  3,
			Queues:         2,
			QueueBase:      5820,
			HeldPerFlow:    4,
			HeldPerVM:      1024,
			FlowsPerVM:     65536,
			Scan:           defaultScan,
		},
		Events: Events{MaxSize: 64 << 20},
	}
}

const defaultScan = time.Second

// fill applies the defaults of what may stand in a file several times, and makes
// relative paths absolute or relative to the working directory.
func (c *Config) fill() {
	for i := range c.Segments {
		s := &c.Segments[i]
		setDefault(&s.Mode, "bridged")
		setDefault(&s.Datapath, "auto")
		setDefault(&s.Multicast, "drop")
		setDefault(&s.Kind, "internal")
		setDefault(&s.Group, "default")
	}
	for i := range c.VMs {
		vm := &c.VMs[i]
		setDefault(&vm.Name, vm.ID)
		if vm.Memory != nil {
			vm.Memory.fill(c.src)
		}
	}
	for i := range c.Policy.Rules {
		setDefault(&c.Policy.Rules[i].Protocol, "any")
	}
	for i := range c.IDS.Convict {
		setDefault(&c.IDS.Convict[i].Then, "convict")
	}
	for i := range c.VMRules {
		r := &c.VMRules[i]
		r.Count, r.Within = cmp.Or(r.Count, 1), cmp.Or(r.Within, 10*time.Minute)
	}
	for i, path := range c.IDS.Rules {
		c.IDS.Rules[i] = c.src.resolve(path)
	}
	if a := &c.IDS.Alerts; c.IDS.Engine == EngineExternal {
		setDefault(&a.Format, "eve")
		setDefault(&a.Unstated, "alert")
		for _, path := range []*string{&a.Certificate, &a.Key, &a.Authority, &a.Socket, &a.File, &a.Datagrams, &a.Spool} {
			if *path != "" {
				*path = c.src.resolve(*path)
			}
		}
	}
	if c.Decision.Scan == 0 {
		c.Decision.Scan = defaultScan
	}
}

func setDefault(field *string, value string) {
	if *field == "" {
		*field = value
	}
}

func (m *Memory) fill(src *source) {
	if m.needsMachine() {
		setDefault(&m.Machine, "q35")
	}
	for _, file := range []*string{&m.Inspector.Certificate, &m.Inspector.Key, &m.Inspector.CA, &m.BTF, &m.SystemMap} {
		if *file != "" {
			*file = src.resolve(*file)
		}
	}
}
