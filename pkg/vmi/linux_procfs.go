package vmi

import (
	"context"
	"fmt"
)

// maxProcEntries bounds the entries of one directory of /proc.
const maxProcEntries = 1 << 12

// listingFiles are the files by which the guest lists sockets and modules, with
// the table that must lead to their content (fs/proc, net/ipv4 and others).
var listingFiles = []struct{ dir, name, table string }{
	{"net", "tcp", "tcp4_seq_ops"}, {"net", "tcp6", "tcp6_seq_ops"}, {"net", "udp", "udp_seq_ops"}, {"net", "udp6", "udp6_seq_ops"},
	{"net", "raw", "raw_seq_ops"}, {"net", "packet", "packet_seq_ops"}, {"net", "unix", "unix_seq_ops"},
	{"", "modules", "modules_proc_ops"},
}

// fileFindings looks whether the files of /proc lead to other tables than the
// kernel's own: those are constant, the files are not.
func (g *linuxGuest) fileFindings(context.Context) ([]Finding, error) {
	k := g.k
	root, ok := k.sym["proc_root"]
	init, ok2 := k.sym["init_net"]
	if !ok || !ok2 || k.NetProc.size == 0 || k.ProcNode.size == 0 || k.ProcSubdir.size == 0 || k.ProcName.size == 0 || k.ProcSeq.size == 0 || k.ProcOps.size == 0 {
		return []Finding{unchecked("the files of /proc", "this kernel does not say where they are")}, nil
	}
	net, err := k.member(init, k.NetProc)
	if err != nil {
		return nil, err
	}
	dirs := make(map[string]map[string]uint64)
	for dir, at := range map[string]uint64{"": root, "net": net} {
		if dirs[dir], err = k.procEntries(at); err != nil {
			return nil, err
		}
	}
	var out []Finding
	for _, f := range listingFiles {
		entry, want := dirs[f.dir][f.name], k.sym[f.table]
		if entry == 0 || want == 0 {
			continue // another version of the kernel, or built without
		}
		leads := k.ProcSeq
		if f.dir == "" {
			leads = k.ProcOps
		}
		to, err := k.member(entry, leads)
		if err != nil {
			return nil, err
		}
		if to != want {
			path := "/proc/" + f.name
			if f.dir != "" {
				path = "/proc/" + f.dir + "/" + f.name
			}
			out = append(out, Finding{Kind: HookedTable, Severity: High, Subject: "file " + path,
				Evidence: fmt.Sprintf("it is led by a table at %#x, not by %s at %#x", to, f.table, want)})
		}
	}
	return out, nil
}

// procEntries are the files of a directory of /proc, by name.
func (k *linuxKernel) procEntries(dir uint64) (map[string]uint64, error) {
	first, err := k.member(dir, k.ProcSubdir)
	if err != nil {
		return nil, err
	}
	out := make(map[string]uint64)
	err = k.rbTree(first, maxProcEntries, func(node uint64) error {
		entry := node - uint64(k.ProcNode.off)
		at, err := k.member(entry, k.ProcName)
		if err != nil {
			return err
		}
		name, err := k.cstring(at, maxNameLen)
		out[name] = entry
		return err
	})
	return out, err
}
