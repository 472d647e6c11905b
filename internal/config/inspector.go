package config

import (
	"errors"
	"fmt"
	"net"
)

// LoadInspector reads and checks the configuration file of gatewayd inspector,
// and the files that it names. All problems are reported together.
func LoadInspector(path string) (*InspectorConfig, error) {
	text, err := readBounded(path)
	if err != nil {
		return nil, fmt.Errorf("cannot read configuration: %w", err)
	}
	c, err := ParseInspector(path, text)
	if err != nil {
		return nil, err
	}
	for _, f := range c.files() {
		if err := readable(f.path); err != nil {
			c.src.report(f.key, "%s: cannot read the file: %v", f.key, err)
		}
	}
	return c, c.src.err()
}

// ParseInspector is Parse for the configuration of gatewayd inspector.
func ParseInspector(name string, text []byte) (*InspectorConfig, error) {
	src := newSource(name, text)
	c := &InspectorConfig{
		Users: []string{"root", "libvirt-qemu", "qemu"},
		Ways:  []string{"descriptor", "file", "process"},

		HiddenSamples: 3,
	}
	if err := read(src, text, c); err != nil {
		return nil, err
	}
	c.src = src
	for _, file := range []*string{&c.Certificate, &c.Key, &c.ClientCA} {
		if *file != "" {
			*file = src.resolve(*file)
		}
	}
	c.validate()
	if err := src.err(); err != nil {
		return nil, err
	}
	return c, nil
}

// file is a file that a configuration names, under a key.
type file struct{ key, path string }

func (c *InspectorConfig) files() []file {
	return []file{{"certificate", c.Certificate}, {"key", c.Key}, {"client-ca", c.ClientCA}}
}

func (c *InspectorConfig) validate() {
	v := &checker{Config: &Config{src: c.src}}
	if _, port, err := net.SplitHostPort(c.Listen); c.Listen == "" {
		v.report("listen", "listen is missing: write 0.0.0.0:9141")
	} else if err != nil || !isPort(port) {
		v.report("listen", "listen: %q is no address to listen on: write 0.0.0.0:9141", c.Listen)
	}
	for _, f := range c.files() {
		if f.path == "" {
			v.report(f.key, "%s is missing: name the PEM file", f.key)
		}
	}
	if len(c.Clients) == 0 {
		v.report("clients", "clients is missing: name the gateways, and the VMs that each may look into")
	}
	names := map[string]string{}
	for i, client := range c.Clients {
		path := fmt.Sprintf("clients[%d]", i)
		if err := checkDNSName(client.Name); err != nil {
			v.report(path+".name", "%s.name: %q %v", path, client.Name, err)
		} else {
			checkUnique(v, names, path+".name", client.Name, "client "+client.Name)
		}
		if len(client.VMs) == 0 {
			v.report(path+".vms", "%s.vms is missing: name what it may look into", path)
		}
		for j, vm := range client.VMs {
			v.checkGuestName(fmt.Sprintf("%s.vms[%d]", path, j), vm)
		}
	}
	if len(c.Ways) == 0 {
		v.report("ways", "ways is empty: name those that may be used")
	}
	for i, way := range c.Ways {
		v.oneOf(fmt.Sprintf("ways[%d]", i), way, "descriptor", "file", "process", "monitor")
	}
	v.between("hidden-samples", c.HiddenSamples, 1, 100)
}

// checkDNSName checks what a certificate can have as a DNS name, in its usual
// form. Names with * are for servers.
func checkDNSName(name string) error {
	if name == "" || len(name) > 253 || !wellFormed.MatchString(name) || name[len(name)-1] == '.' {
		return errors.New("is no DNS name: write gw1.example.org, in small letters")
	}
	for _, r := range name {
		if r >= 'A' && r <= 'Z' || r == '_' {
			return errors.New("is no DNS name: write gw1.example.org, in small letters")
		}
	}
	return nil
}
