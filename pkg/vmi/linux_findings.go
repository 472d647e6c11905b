package vmi

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
)

func (g *linuxGuest) Findings(ctx context.Context) ([]Finding, error) {
	g = g.during(ctx)
	out := []Finding{}
	for _, look := range []struct {
		at string
		by func(context.Context) ([]Finding, error)
	}{
		{"the processes", g.processFindings},
		{"the programs", g.programFindings},
		{"the sockets", g.socketFindings},
		{"the tables of sockets", g.tableFindings},
		{"the modules", g.moduleFindings},
		{"the kernel's functions", g.hookFindings},
		{"what traces them", g.handlerFindings},
		{"the files of /proc", g.fileFindings},
	} {
		found, err := retry(ctx, g.k, func() ([]Finding, error) { return look.by(ctx) })
		if err != nil {
			return nil, fmt.Errorf("cannot look at %s: %w", look.at, err)
		}
		out = append(out, found...)
	}
	slices.SortStableFunc(out, func(a, b Finding) int { return cmp.Compare(weight(a.Severity), weight(b.Severity)) })
	return out, nil
}

func weight(s Severity) int { return slices.Index([]Severity{High, Medium, Low, Unknown}, s) }

// unchecked says that something could not be looked at.
func unchecked(subject, why string) Finding {
	return Finding{Kind: Unchecked, Severity: Unknown, Subject: subject, Evidence: why}
}

// processFindings compares the views of processes.
func (g *linuxGuest) processFindings(ctx context.Context) ([]Finding, error) {
	c, err := g.k.census(ctx, g.samples)
	if err != nil {
		return nil, err
	}
	var out []Finding
	if _, ok := g.k.sym["task_struct_cachep"]; !ok {
		out = append(out, unchecked("processes in the allocator", "this kernel does not say where it allocates them"))
	}
	for key, s := range c.last {
		f := Finding{PID: key.pid, Subject: fmt.Sprintf("process %d (%s)", key.pid, s.task.comm), Views: s.views}
		switch {
		case c.missed[key] >= g.samples:
			f.Kind, f.Severity, f.Evidence = HiddenProcess, High, hiddenWhy(s.views, c.missed[key])
		case c.altered[key] >= g.samples:
			f.Kind, f.Severity = AlteredProcess, High
			f.Evidence = fmt.Sprintf("its own record says another pid than its struct pid, which says %d, in %d samples that agree", s.task.number, c.altered[key])
		case c.looks[key] >= g.samples && !(slices.Contains(s.views, viewTasks) && slices.Contains(s.views, viewTree)):
			f.Kind, f.Severity = UnlinkedProcess, Medium
			f.Evidence = fmt.Sprintf("its own ps shows it; seen in %s, missing from %s, in %d samples that agree",
				strings.Join(s.views, ", "), strings.Join(missingViews(s.views), ", "), c.looks[key])
		default:
			continue
		}
		out = append(out, f)
	}
	slices.SortFunc(out, func(a, b Finding) int { return cmp.Compare(a.PID, b.PID) })
	return out, nil
}

// socketFindings looks for sockets that are open, but not in any process. One
// that is being closed, or passed on, looks so for a moment: samples must agree.
func (g *linuxGuest) socketFindings(ctx context.Context) ([]Finding, error) {
	var orphans map[openSocket]sock
	for i := range g.samples {
		if i > 0 {
			if err := pause(ctx, sampleGap); err != nil {
				return nil, err
			}
		}
		now, err := g.orphans(ctx)
		if err != nil {
			return nil, err
		}
		if i > 0 {
			for key := range now {
				if _, before := orphans[key]; !before {
					delete(now, key)
				}
			}
		}
		if orphans = now; len(orphans) == 0 {
			return nil, nil
		}
	}
	flying, err := g.flying(ctx, orphans)
	if err != nil {
		return nil, err
	}
	var out []Finding
	for key, s := range orphans {
		f := Finding{
			Kind: OrphanSocket, Severity: Medium,
			Subject: fmt.Sprintf("%s (%s)", s, stateName(s.state)),
			Evidence: fmt.Sprintf("its file (inode %d) is open, and no process in any view has a descriptor of it, in %d samples that agree",
				key.inode, g.samples),
		}
		if _, ok := flying[key.file]; ok {
			f.Severity = Low
			f.Evidence += "; it is in the queue of a unix socket, on its way between two processes"
		}
		out = append(out, f)
	}
	slices.SortFunc(out, func(a, b Finding) int { return cmp.Compare(a.Subject, b.Subject) })
	return out, nil
}

// flying are those of the orphans that wait in a unix socket.
func (g *linuxGuest) flying(ctx context.Context, orphans map[openSocket]sock) (map[uint64]flight, error) {
	want := make(map[uint64]bool)
	for key := range orphans {
		want[key.file] = true
	}
	return g.k.inFlight(ctx, want)
}

// openSocket tells an open socket from a later one at the same place.
type openSocket struct{ file, inode uint64 }

// orphans finds open sockets that no process holds.
func (g *linuxGuest) orphans(ctx context.Context) (map[openSocket]sock, error) {
	all, err := g.k.allSockets(ctx)
	if err != nil {
		return nil, err
	}
	files, by := make(map[uint64]uint64), make(map[openSocket]sock)
	for _, s := range all {
		f, ok, err := g.k.openFile(s)
		if err != nil || !ok || f.count == 0 || f.count > 1<<30 {
			continue // closed in the meantime, or nobody's
		}
		files[f.file], by[openSocket{f.file, f.inode}] = f.count, s
	}
	holders, err := g.findHolders(ctx, files)
	if err != nil {
		return nil, err
	}
	if err := g.k.addRings(ctx, files, holders); err != nil {
		return nil, err
	}
	for key, s := range by {
		now, ok, err := g.k.openFile(s)
		if len(holders[key.file]) > 0 || err != nil || !ok || now.file != key.file || now.inode != key.inode {
			delete(by, key)
		}
	}
	return by, nil
}
