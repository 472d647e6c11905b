package vmi

// maxLineage bounds the ancestors that are told of a process.
const maxLineage = 64

// lineage gives a process's ancestors, its parent first. known are tasks that
// have been read already, by address; nil is fine.
func (k *linuxKernel) lineage(t task, known map[uint64]task) []Ancestor {
	var out []Ancestor
	for len(out) < maxLineage && t.parent != k.sym["init_task"] { // the idle task: the parent of the first process
		parent, ok := known[t.parent]
		if !ok {
			var err error
			if parent, err = k.task(t.parent); err != nil {
				return out
			}
		}
		if parent.pid != parent.tgid { // a thread made it
			var err error
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
