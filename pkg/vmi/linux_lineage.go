package vmi

import "slices"

// maxLineage bounds the ancestors that are told of a process.
const maxLineage = 64

// lineages are ancestors that were read already, by the address of the parent.
type lineages map[uint64][]Ancestor

// lineage gives a process's ancestors, its parent first. known may be nil.
func (k *linuxKernel) lineage(t task, known lineages) []Ancestor {
	if out, ok := known[t.parent]; ok {
		return slices.Clone(out)
	}
	out := k.readLineage(t)
	if known != nil {
		known[t.parent] = slices.Clone(out)
	}
	return out
}

func (k *linuxKernel) readLineage(t task) []Ancestor {
	var out []Ancestor
	for len(out) < maxLineage && t.parent != k.sym["init_task"] { // the idle task: the parent of the first process
		parent, err := k.task(t.parent)
		if err != nil {
			return out
		}
		if parent.pid != parent.tgid { // a thread made it
			if parent, err = k.task(parent.leader); err != nil {
				return out
			}
		}
		if parent.tgid == 0 {
			return out
		}
		out = append(out, Ancestor{PID: parent.tgid, Start: parent.start, Name: parent.comm})
		t = parent
	}
	return out
}
