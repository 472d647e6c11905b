package config

import (
	"fmt"
	"math/bits"
	"net"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
)

// memoryPlaces notes where the memory of which VM is, so that two VMs do not get
// one memory: by place, to the path in the configuration.
type memoryPlaces map[string]string

// checkMemory checks that a VM's memory has one place, and that.
func (v *checker) checkMemory(path string, m *Memory, used memoryPlaces) {
	if m == nil {
		return
	}
	places := []struct {
		key   string
		given bool
		check func(path string)
	}{
		{"file", m.File != "", func(path string) {
			v.checkPath(path, m.File)
			checkUnique(v, used, path, "file "+filepath.Clean(m.File), "memory file "+m.File)
		}},
		{"process", m.Process != Process{}, func(path string) { v.checkProcess(path, m.Process, used) }},
		{"monitor", m.Monitor != Monitor{}, func(path string) {
			v.checkPath(path+".socket", m.Monitor.Socket)
			checkUnique(v, used, path+".socket", "monitor "+filepath.Clean(m.Monitor.Socket), "monitor "+m.Monitor.Socket)
		}},
		{"ivshmem", m.Ivshmem != Ivshmem{}, func(path string) { v.checkIvshmem(path, m.Ivshmem, used) }},
		{"nvdimm", m.NVDIMM != NVDIMM{}, func(path string) { v.checkNVDIMM(path, m.NVDIMM, used) }},
		{"inspector", m.Inspector != Inspector{}, func(path string) { v.checkInspector(path, m.Inspector, used) }},
	}
	for _, f := range []file{{"btf", m.BTF}, {"system-map", m.SystemMap}} {
		switch {
		case f.path == "":
		case m.Inspector != Inspector{}:
			v.report(path+"."+f.key, "%s.%s: a VM behind an inspector cannot have it: leave the line out", path, f.key)
		default:
			v.checkPath(path+"."+f.key, f.path)
		}
	}
	var given, known []string
	for _, p := range places {
		known = append(known, p.key)
		if p.given {
			given = append(given, p.key)
			p.check(path + "." + p.key)
		}
	}
	switch {
	case len(given) == 0:
		v.report(path, "%s: none of %s is given: say where the memory is, or write memory: none", path, strings.Join(known, ", "))
	case len(given) > 1:
		v.report(path+"."+given[1], "%s: %s are given: the memory is in one place, keep one", path, strings.Join(given, " and "))
	case m.needsMachine():
		v.oneOf(path+".machine", m.Machine, "q35", "pc")
	case m.Machine != "":
		v.report(path+".machine", "%s.machine: with %s the machine type is known: leave the line out", path, given[0])
	}
}

// needsMachine says whether the place does not tell what the machine is.
func (m *Memory) needsMachine() bool {
	return m.File != "" || m.Ivshmem != Ivshmem{} || m.NVDIMM != NVDIMM{}
}

func (v *checker) checkPath(path, value string) {
	switch {
	case value == "":
		v.report(path, "%s is missing", path)
	case !filepath.IsAbs(value):
		v.report(path, "%s: %q is not absolute: begin it with /", path, value)
	}
}

func (v *checker) checkProcess(path string, p Process, used memoryPlaces) {
	if (p.Name == "") == (p.PIDFile == "") {
		v.report(path, "%s: give either name or pid-file, to find QEMU by", path)
		return
	}
	if p.PIDFile != "" {
		v.checkPath(path+".pid-file", p.PIDFile)
		checkUnique(v, used, path+".pid-file", "pid-file "+filepath.Clean(p.PIDFile), "pid file "+p.PIDFile)
	} else {
		checkUnique(v, used, path+".name", "name "+p.Name, "QEMU's name "+p.Name)
	}
	if p.Monitor != "" {
		v.checkPath(path+".monitor", p.Monitor)
	}
}

var pciAddress = regexp.MustCompile(`^[0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]$`)

func (v *checker) checkIvshmem(path string, i Ivshmem, used memoryPlaces) {
	v.checkSize(path+".size", i.Size)
	if bits.OnesCount64(uint64(i.Size)) > 1 {
		v.report(path+".size", "%s.size: %s is no power of two, and the memory of a PCI device has such a size: use nvdimm, or give the VM other RAM", path, i.Size)
	}
	if i.Device != "" && !pciAddress.MatchString(i.Device) {
		v.report(path+".device", "%s.device: %q is no address of a PCI device: write 0000:00:05.0", path, i.Device)
	}
	checkUnique(v, used, path, "ivshmem "+i.Device+" "+i.Size.String(), "this ivshmem device")
}

func (v *checker) checkNVDIMM(path string, n NVDIMM, used memoryPlaces) {
	v.checkSize(path+".size", n.Size)
	checkUnique(v, used, path, fmt.Sprintf("nvdimm %d %s", n.Address, n.Size), "this NVDIMM")
}

func (v *checker) checkSize(path string, size Size) {
	if size == 0 {
		v.report(path, "%s is missing: say how much RAM the VM has, such as 512M", path)
	}
}

func (v *checker) checkInspector(path string, i Inspector, used memoryPlaces) {
	if i.Address == "" {
		v.report(path+".address", "%s.address is missing: write host:port of the inspector", path)
	} else if host, port, err := net.SplitHostPort(i.Address); err != nil || host == "" || !isPort(port) {
		v.report(path+".address", "%s.address: %q is no address: write hv1.example.org:9141", path, i.Address)
	}
	v.checkGuestName(path+".vm", i.VM)
	for _, f := range []struct{ key, value string }{{".certificate", i.Certificate}, {".key", i.Key}, {".ca", i.CA}} {
		if f.value == "" {
			v.report(path+f.key, "%s%s is missing: name the PEM file", path, f.key)
		}
	}
	checkUnique(v, used, path+".vm", "inspector "+i.Address+" "+i.VM, "VM "+i.VM+" of this inspector")
}

func isPort(s string) bool {
	n, err := strconv.ParseUint(s, 10, 16)
	return err == nil && n > 0
}

// maxGuestName bounds the names of QEMU's -name; it is ours, QEMU has none.
const maxGuestName = 255

// checkGuestName checks what QEMU's -name may be.
func (v *checker) checkGuestName(path, name string) {
	switch {
	case name == "":
		v.report(path, "%s is missing: write what QEMU's -name calls it", path)
	case len(name) > maxGuestName:
		v.report(path, "%s: %q has %d bytes: at most %d", path, name, len(name), maxGuestName)
	case strings.ContainsFunc(name, func(r rune) bool { return r < ' ' || r == 0x7f }):
		v.report(path, "%s: %q has characters that cannot be printed", path, name)
	}
}
