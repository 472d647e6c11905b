package vmi

import (
	"encoding/binary"
	"encoding/hex"
	"strings"
)

// Bounds on what is told of a process.
const (
	maxPathDepth = 128
	maxPathLen   = 4096
	maxNameLen   = 255
	maxArgBytes  = 16 << 10
	maxArgs      = 2048
	maxHeaders   = 64
	maxNotes     = 4096
)

// process describes a process but for its program; known may be nil.
func (k *linuxKernel) process(t task, known lineages) Process {
	p := Process{PID: t.tgid, Start: t.start, Name: t.comm, Kernel: t.flags&taskKernelThread != 0}
	if p.Parents = k.lineage(t, known); len(p.Parents) > 0 {
		p.PPID = p.Parents[0].PID
	}
	if uid, err := k.u32(t.cred + uint64(k.CredUID.off)); err == nil {
		p.UID = uid
	}
	return p
}

// program is what a process runs and where, as far as it is in memory: what is
// swapped out, or changes under the read, stays empty.
type program struct {
	path, buildID string
	args          []string
	argsCut       bool
	cgroup        string
	netNS         uint32
}

// size is about what a program takes in the cache.
func (p program) size() int {
	n := 256 + len(p.path) + len(p.cgroup)
	for _, a := range p.args {
		n += 16 + len(a)
	}
	return n
}

func (k *linuxKernel) program(t task) program {
	var p program
	if t.flags&taskKernelThread != 0 || !k.isDirect(t.mm) {
		return p
	}
	if exe, err := k.member(t.mm, k.MMExe); err == nil && k.isDirect(exe) {
		p.path = k.filePath(exe)
	}
	user, err := k.userSpace(t.mm)
	if err != nil {
		return p
	}
	p.args, p.argsCut = user.args(k, t.mm)
	p.buildID = user.buildID(k, t.mm)
	p.cgroup, p.netNS = k.cgroupPath(t.cgroups), k.netNamespace(t.nsproxy)
	return p
}

// filePath builds a file's path from its directory entries, up to the root of
// the mounts, as d_path of the kernel does.
func (k *linuxKernel) filePath(file uint64) string {
	r, err := k.record(file+uint64(k.FilePath.off), spanOf(k.PathMount, k.PathDentry))
	if err != nil {
		return ""
	}
	dentry := r.uint(k.PathDentry)
	mount := r.uint(k.PathMount) - uint64(k.MountVFS.off)
	var names []string
	for length, depth := 0, 0; depth < maxPathDepth && length < maxPathLen; depth++ {
		root, err := k.u64(mount + uint64(k.MountVFS.off) + uint64(k.VFSMountRoot.off))
		if err != nil {
			return ""
		}
		parent, err := k.member(dentry, k.DentryParent)
		if err != nil {
			return ""
		}
		if dentry != root && dentry != parent {
			name, err := k.dentryName(dentry)
			if err != nil {
				return ""
			}
			names = append([]string{name}, names...)
			length += len(name) + 1
			dentry = parent
			continue
		}
		up, err := k.member(mount, k.MountParent)
		if err != nil {
			return ""
		}
		if up == mount || dentry != root {
			return "/" + strings.Join(names, "/")
		}
		if dentry, err = k.member(mount, k.MountPoint); err != nil {
			return ""
		}
		mount = up
	}
	return ""
}

func (k *linuxKernel) dentryName(dentry uint64) (string, error) {
	n, err := k.u32(dentry + uint64(k.DentryLen.off))
	if err != nil {
		return "", err
	}
	at, err := k.member(dentry, k.DentryName)
	if err != nil {
		return "", err
	}
	name := make([]byte, min(n, maxNameLen))
	err = k.read(name, at)
	return printable(string(name)), err
}

// userSpace is a process's own memory.
type userSpace struct {
	pageTable
}

func (k *linuxKernel) userSpace(mm uint64) (userSpace, error) {
	pgd, err := k.member(mm, k.MMPGD)
	if err != nil {
		return userSpace{}, err
	}
	root, _, err := k.phys(pgd)
	return userSpace{pageTable{mem: metered{k.mem, k.budget}, root: root, levels: k.tables.levels}}, err
}

// read fills p from a user address; pages that are not resident are an error.
func (u userSpace) read(p []byte, va uint64) error {
	for len(p) > 0 {
		phys, run, err := u.walk(va)
		if err != nil {
			return err
		}
		n := min(uint64(len(p)), run)
		if err := u.mem.ReadPhys(p[:n], phys); err != nil {
			return err
		}
		p, va = p[n:], va+n
	}
	return nil
}

// args reads the command line that the kernel keeps on the process's stack, as
// far as it is resident; cut says that there is more.
func (u userSpace) args(k *linuxKernel, mm uint64) (args []string, cut bool) {
	start, err := k.member(mm, k.MMArgStart)
	if err != nil {
		return nil, false
	}
	end, err := k.member(mm, k.MMArgEnd)
	if err != nil || end <= start {
		return nil, false
	}
	raw := make([]byte, min(end-start, maxArgBytes))
	read := 0
	for read < len(raw) {
		va := start + uint64(read)
		n := min(len(raw)-read, int(pageSize-va&pageMask))
		if u.read(raw[read:read+n], va) != nil {
			break
		}
		read += n
	}
	if read == 0 {
		return nil, false
	}
	args = strings.Split(strings.TrimSuffix(string(raw[:read]), "\x00"), "\x00")
	cut = uint64(read) < end-start || len(args) > maxArgs
	args = args[:min(len(args), maxArgs)]
	for i := range args {
		args[i] = printableUpTo(args[i], maxArgBytes)
	}
	return args, cut
}

// From the ELF specification and include/uapi/linux/auxvec.h.
const (
	auxPhdr, auxPhnum        = 3, 5
	ptLoad, ptNote, ptPhdr   = 1, 4, 6
	phdrSize                 = 56
	ntGNUBuildID, ntGoID     = 3, 4
	elfHeaderSize, auxvBytes = 64, 16 * 24
)

// programHeaders reads those of the executable that the process was given in its
// auxiliary vector, and how far it lies from where it was linked for; nil where
// they are not resident.
func (u userSpace) programHeaders(k *linuxKernel, mm uint64) (headers []byte, bias uint64) {
	auxv := make([]byte, min(auxvBytes, max(k.MMAuxv.size, 8)&^15))
	if k.read(auxv, mm+uint64(k.MMAuxv.off)) != nil {
		return nil, 0
	}
	le := binary.LittleEndian
	var at, n uint64
	for i := 0; i+16 <= len(auxv); i += 16 {
		switch le.Uint64(auxv[i:]) {
		case auxPhdr:
			at = le.Uint64(auxv[i+8:])
		case auxPhnum:
			n = le.Uint64(auxv[i+8:])
		}
	}
	if at == 0 || n == 0 || n > maxHeaders {
		return nil, 0
	}
	headers = make([]byte, n*phdrSize)
	if u.read(headers, at) != nil {
		return nil, 0
	}
	return headers, loadBias(headers, at)
}

// buildID reads the executable's build id.
func (u userSpace) buildID(k *linuxKernel, mm uint64) string {
	headers, bias := u.programHeaders(k, mm)
	le := binary.LittleEndian
	for ; len(headers) > 0; headers = headers[phdrSize:] {
		if le.Uint32(headers) != ptNote {
			continue
		}
		notes := make([]byte, min(le.Uint64(headers[40:]), maxNotes))
		if u.read(notes, bias+le.Uint64(headers[16:])) != nil {
			continue
		}
		if found := findBuildID(notes); found != "" {
			return found
		}
	}
	return ""
}

// loadBias is the distance of an executable's addresses from those it was
// linked for. at is where its program headers are.
func loadBias(headers []byte, at uint64) uint64 {
	le := binary.LittleEndian
	for ; len(headers) >= phdrSize; headers = headers[phdrSize:] {
		switch typ, offset, va := le.Uint32(headers), le.Uint64(headers[8:]), le.Uint64(headers[16:]); {
		case typ == ptPhdr:
			return at - va
		case typ == ptLoad && offset == 0:
			return at - elfHeaderSize - va // the headers follow the ELF header
		}
	}
	return 0
}

// findBuildID looks through ELF notes for GNU's build id, in hex, or Go's, which
// is text: of a Go program's notes the program headers name only that one.
func findBuildID(notes []byte) string {
	le := binary.LittleEndian
	for len(notes) >= 12 {
		nameLen, descLen, typ := uint64(le.Uint32(notes)), uint64(le.Uint32(notes[4:])), le.Uint32(notes[8:])
		nameEnd := 12 + (nameLen+3)&^3
		end := nameEnd + (descLen+3)&^3
		if end > uint64(len(notes)) {
			return ""
		}
		name, desc := string(notes[12:12+nameLen]), notes[nameEnd:nameEnd+descLen]
		switch {
		case typ == ntGNUBuildID && name == "GNU\x00" && descLen <= 64:
			return hex.EncodeToString(desc)
		case typ == ntGoID && name == "Go\x00\x00":
			return printable(string(desc))
		}
		notes = notes[end:]
	}
	return ""
}
