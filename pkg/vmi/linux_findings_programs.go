package vmi

import (
	"context"
	"fmt"
	"slices"
	"strings"
)

// kernelNames are how names of kernel threads begin, of which there is one on
// every machine.
var kernelNames = []string{"kworker/", "kthreadd", "ksoftirqd/", "migration/", "kswapd", "kcompactd", "kdevtmpfs", "rcu_", "khugepaged", "kauditd"}

// programFindings looks at what processes say of themselves. Neither of what it
// finds means much on its own.
func (g *linuxGuest) programFindings(ctx context.Context) ([]Finding, error) {
	tasks, err := g.k.tasksView(ctx)
	if err != nil {
		return nil, err
	}
	var out []Finding
	for _, t := range tasks {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if t.flags&taskKernelThread != 0 || !g.k.isDirect(t.mm) || !g.k.living(t) {
			continue
		}
		p := g.process(t, nil)
		subject := fmt.Sprintf("process %d (%s)", p.PID, p.Name)
		if how := posing(p); how != "" {
			out = append(out, Finding{Kind: PosingProcess, Severity: Low, Subject: subject, PID: p.PID, Evidence: how})
		}
		if gone, err := g.k.deleted(t.mm); err == nil && gone {
			out = append(out, Finding{Kind: DeletedProgram, Severity: Low, Subject: subject, PID: p.PID,
				Evidence: fmt.Sprintf("it executes %s, which was deleted or replaced since", p.Path)})
		}
	}
	return out, nil
}

// posing says how a process passes for a kernel thread; "" if it does not.
func posing(p Process) string {
	if i := slices.IndexFunc(kernelNames, func(name string) bool { return strings.HasPrefix(p.Name, name) }); i >= 0 {
		return fmt.Sprintf("it is called as kernel threads are, and executes %s", p.Path)
	}
	if len(p.Args) > 0 && strings.HasPrefix(p.Args[0], "[") {
		return fmt.Sprintf("it calls itself %s, as ps shows kernel threads, and executes %s", p.Args[0], p.Path)
	}
	return ""
}

// deleted says whether the file that a process executes has lost its name: its
// directory entry is not hashed any more (d_unlinked of include/linux/dcache.h).
func (k *linuxKernel) deleted(mm uint64) (bool, error) {
	if k.DentryHashed.size == 0 {
		return false, nil
	}
	exe, err := k.member(mm, k.MMExe)
	if err != nil || !k.isDirect(exe) {
		return false, err
	}
	dentry, err := k.member(exe+uint64(k.FilePath.off), k.PathDentry)
	if err != nil || !k.isDirect(dentry) {
		return false, err
	}
	parent, err := k.member(dentry, k.DentryParent)
	if err != nil || parent == dentry {
		return false, err // a file of its own, such as a memfd's
	}
	hashed, err := k.member(dentry, k.DentryHashed)
	return hashed == 0, err
}
