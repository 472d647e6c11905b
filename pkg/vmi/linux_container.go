package vmi

import (
	"encoding/binary"
	"slices"
	"strings"
)

// maxCgroupDepth bounds the path of a cgroup.
const maxCgroupDepth = 64

// cgroupPath is the place of a process among the control groups, as
// /proc/PID/cgroup shows it from the outermost container: that in the unified
// hierarchy, or where this is the root and the kernel has hierarchies of single
// controllers (version 1), that in the first of these. One that names a container
// comes before one that does not. It is "" where the kernel has none.
func (k *linuxKernel) cgroupPath(cgroups uint64) string {
	if k.TaskCgroups.size == 0 || k.CSSCgroup.size == 0 || k.CgroupKN.size == 0 || k.KNName.size == 0 || k.KNParent.size == 0 {
		return ""
	}
	// The set that all processes begin with is part of the kernel's image.
	unified, err := k.member(cgroups, k.CSSCgroup)
	if err != nil {
		return ""
	}
	best := k.pathOfCgroup(unified)
	if containerID(best) != "" {
		return best
	}
	for _, cgroup := range k.otherCgroups(cgroups, unified) {
		path := k.pathOfCgroup(cgroup)
		if containerID(path) != "" {
			return path
		}
		if path != "" && (best == "" || best == "/") {
			best = path
		}
	}
	return best
}

// maxControllers bounds the kernel's controllers (include/linux/cgroup_subsys.h
// has some fifteen).
const maxControllers = 32

// otherCgroups are a process's groups in other hierarchies than the unified one.
func (k *linuxKernel) otherCgroups(cgroups, unified uint64) []uint64 {
	if k.CSSSubsys.size == 0 || k.SubsysCgroup.size == 0 || k.CgroupRoot.size == 0 {
		return nil
	}
	home, err := k.member(unified, k.CgroupRoot)
	if err != nil {
		return nil
	}
	raw := make([]byte, min(k.CSSSubsys.size, 8*maxControllers)&^7)
	if k.read(raw, cgroups+uint64(k.CSSSubsys.off)) != nil {
		return nil
	}
	var out []uint64
	for ; len(raw) > 0; raw = raw[8:] {
		state := binary.LittleEndian.Uint64(raw)
		cgroup, err := k.member(state, k.SubsysCgroup)
		if state == 0 || err != nil {
			continue
		}
		if root, err := k.member(cgroup, k.CgroupRoot); err == nil && root != home && !slices.Contains(out, cgroup) {
			out = append(out, cgroup)
		}
	}
	return out
}

// pathOfCgroup is a group's path in its hierarchy; "" where it cannot be read.
func (k *linuxKernel) pathOfCgroup(cgroup uint64) string {
	node, err := k.member(cgroup, k.CgroupKN)
	if err != nil {
		return ""
	}
	var names []string
	for depth := 0; ; depth++ {
		parent, err := k.member(node, k.KNParent)
		if err != nil || depth == maxCgroupDepth {
			return ""
		}
		if parent == 0 {
			return "/" + strings.Join(names, "/")
		}
		at, err := k.member(node, k.KNName)
		if err != nil {
			return ""
		}
		name, err := k.cstring(at, maxNameLen)
		if err != nil {
			return ""
		}
		names = append([]string{printable(name)}, names...)
		node = parent
	}
}

// containerIDLen is the length of the names that container runtimes give, in hex.
const containerIDLen = 64

// containerID finds the innermost container in the path of a cgroup:
// "/system.slice/docker-ID.scope", "/kubepods/…/cri-containerd-ID.scope",
// "/docker/ID" and the like.
func containerID(cgroup string) string {
	run, found := 0, ""
	for i := 0; i <= len(cgroup); i++ {
		if i < len(cgroup) && isLowerHex(cgroup[i]) {
			run++
			continue
		}
		if run == containerIDLen {
			found = cgroup[i-run : i]
		}
		run = 0
	}
	return found
}

func isLowerHex(c byte) bool { return c >= '0' && c <= '9' || c >= 'a' && c <= 'f' }

// netNamespace is the number of a process's network namespace, as
// /proc/PID/ns/net shows it; 0 where it has none any more, as a zombie.
func (k *linuxKernel) netNamespace(nsproxy uint64) uint32 {
	if nsproxy == 0 || k.NSProxyNet.size == 0 {
		return 0
	}
	net, err := k.member(nsproxy, k.NSProxyNet)
	if err != nil {
		return 0
	}
	return k.netNumber(net)
}

// netNumber is the number of a network namespace; 0 where it cannot be read.
func (k *linuxKernel) netNumber(net uint64) uint32 {
	if k.NetInum.size == 0 {
		return 0
	}
	inum, err := k.u32(net + uint64(k.NetInum.off))
	if err != nil {
		return 0
	}
	return inum
}

// netNumbered is netNumber that remembers.
func (k *linuxKernel) netNumbered(net uint64, known map[uint64]uint32) uint32 {
	number, ok := known[net]
	if !ok {
		number = k.netNumber(net)
		known[net] = number
	}
	return number
}
