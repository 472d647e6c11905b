package config

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
)

// CheckFiles checks that the files which the configuration names and the daemon
// only reads can be read: the IDS's rules. Load has done so.
func (c *Config) CheckFiles() error {
	for i, path := range c.IDS.Rules {
		if err := readable(path); err != nil {
			c.src.report(fmt.Sprintf("ids.rules[%d]", i), "ids.rules[%d]: cannot read the rule file: %v", i, err)
		}
	}
	return c.src.err()
}

// readable opens the file without waiting (it might be a pipe) and reads a byte.
func readable(path string) error {
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("%s is no regular file", path)
	}
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.Read(make([]byte, 1)); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	return nil
}

// CheckHost checks what depends on the machine and changes with it: vNICs,
// memory files, and the files of CheckFiles. For the running daemon none of it is
// fatal but the last: a vNIC may come later, and a VM may be off.
func (c *Config) CheckHost() []error {
	var errs []error
	if err := c.CheckFiles(); err != nil {
		errs = append(errs, err)
	}
	add := func(path, format string, args ...any) {
		errs = append(errs, c.src.problem(c.src.find(path), fmt.Sprintf(format, args...)))
	}
	for i, s := range c.Segments {
		if _, err := net.InterfaceByName(s.VNIC); err != nil {
			add(fmt.Sprintf("segments[%d].vnic", i),
				"segment %s: there is no network device %q here: attach the vNIC, or correct its name (ip link)", s.Name, s.VNIC)
		}
	}
	for i, vm := range c.VMs {
		if vm.Memory == nil {
			continue
		}
		path := fmt.Sprintf("vms[%d].memory", i)
		for _, p := range vm.Memory.problems() {
			add(path+"."+p.key, "VM %s: %s", vm.ID, p.text)
		}
	}
	return errs
}

// problem is what is wrong with the file under a key.
type problem struct{ key, text string }

// problems says what of a VM's memory cannot be found on this machine.
func (m *Memory) problems() (out []problem) {
	if m.File != "" {
		if err := readable(m.File); errors.Is(err, fs.ErrNotExist) {
			out = append(out, problem{"file", fmt.Sprintf("there is no memory file %s: start the VM with -object memory-backend-file,mem-path=%[1]s,share=on, or write memory: none", m.File)})
		} else if err != nil {
			out = append(out, problem{"file", "cannot read its memory: " + err.Error()})
		}
	}
	for _, f := range []file{{"process.pid-file", m.Process.PIDFile}, {"process.monitor", m.Process.Monitor}, {"monitor.socket", m.Monitor.Socket}} {
		if f.path == "" {
			continue
		}
		if _, err := os.Stat(f.path); errors.Is(err, fs.ErrNotExist) {
			out = append(out, problem{f.key, fmt.Sprintf("there is no %s: start the VM, or correct the path", f.path)})
		} else if err != nil {
			out = append(out, problem{f.key, err.Error()})
		}
	}
	for _, f := range []file{{"certificate", m.Inspector.Certificate}, {"key", m.Inspector.Key}, {"ca", m.Inspector.CA}} {
		if f.path == "" {
			continue
		}
		if err := readable(f.path); err != nil {
			out = append(out, problem{"inspector." + f.key, "cannot read the file: " + err.Error()})
		}
	}
	for _, f := range []file{{"btf", m.BTF}, {"system-map", m.SystemMap}} {
		if f.path == "" {
			continue
		}
		if err := readable(f.path); err != nil {
			out = append(out, problem{f.key, "cannot read the file: " + err.Error() + ": correct the path, or leave the line out: most kernels need none"})
		}
	}
	return out
}
