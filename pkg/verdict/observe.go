package verdict

// Observe takes in one piece of evidence and returns what it changed: the new
// standing of the process or VM that it is about. Nothing is returned for what
// was known before. It understands
//
//   - EvidenceAlert and EvidenceReport about a process: Drop convicts that one
//     instance, Check makes it a suspect;
//   - EvidenceReport about a VM (Process is nil), and EvidenceVMRule: stands until the
//     VM is released;
//   - EvidenceHidden about a process: makes the instance a suspect;
//   - EvidenceOperator with Drop (isolate) or Check (inspect), about a process or
//     a VM: stands until released. To inspect what is isolated, release it first;
//   - EvidenceOperator with Forward (release): lifts all measures about the VM, but
//     no conviction of its processes; about a process, all measures and all that
//     was learned about the instance, the conviction included.
//
// Evidence that names neither, and an alert without a process, changes nothing:
// a whole VM is not cut off for one flow that nobody owns.
func (b *Book) Observe(ev Evidence) []Effect {
	if ev.Process != nil {
		p := *ev.Process
		if p.VM == "" {
			p.VM = ev.VM
		}
		ev.Process, ev.VM = &p, p.VM
	}
	if ev.VM == "" {
		return nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()

	before, _ := b.stand(&ev)
	learned := b.record(ev)
	after, evidence := b.stand(&ev)
	if after == before && !learned {
		return nil
	}
	effect := Effect{Scope: ScopeVM, VM: ev.VM, Process: ev.Process, Verdict: after.Verdict, Cause: after.Cause, Evidence: evidence}
	if ev.Process != nil {
		effect.Scope = ScopeProcess
	}
	return []Effect{effect}
}

// stand judges what the evidence is about.
func (b *Book) stand(ev *Evidence) (Standing, []Evidence) {
	if ev.Process != nil {
		return b.judgeProcess(ev.Process)
	}
	return b.judgeVM(ev.VM)
}

// record writes the evidence into the book, and says whether a list grew.
func (b *Book) record(ev Evidence) (learned bool) {
	aboutProcess, strict := ev.Process != nil, ev.Verdict == Check || ev.Verdict == Drop
	switch {
	case ev.Kind == EvidenceHidden && aboutProcess:
		return b.learn(Suspect, CauseHidden, ev)
	case ev.Kind == EvidenceAlert && aboutProcess && strict:
		return b.learn(listFor(ev.Verdict), CauseAlert, ev)
	case ev.Kind == EvidenceReport && aboutProcess && strict:
		return b.learn(listFor(ev.Verdict), CauseReport, ev)
	case ev.Kind == EvidenceReport && strict:
		ev.Cause = CauseReport
		b.measures.take(ev)
	case ev.Kind == EvidenceVMRule && strict && !aboutProcess:
		b.measures.take(ev)
	case ev.Kind == EvidenceOperator && strict:
		ev.Cause = CauseOperator
		b.measures.take(ev)
	case ev.Kind == EvidenceOperator && ev.Verdict == Forward:
		b.release(&ev)
	}
	return false
}

func listFor(v Verdict) ListKind {
	if v == Drop {
		return Malicious
	}
	return Suspect
}

// learn puts the instance on the list. A convicted instance is no suspect more.
func (b *Book) learn(list ListKind, cause Cause, ev Evidence) bool {
	p := ev.Process
	if list == Suspect && b.lists.convicted(p.Instance) {
		return false
	}
	entry := ListEntry{
		List: list, Origin: OriginLearned, Cause: cause, Reason: ev.Detail, Added: ev.Observed,
		Name: p.Name, Path: p.Path, Fingerprint: p.Fingerprint, Instance: &p.Instance, Expires: ev.Expires,
	}
	added, err := b.lists.put(entry.normalized())
	if err != nil {
		panic("verdict: learned entries evict and are never refused: " + err.Error())
	}
	return added
}

func (b *Book) release(ev *Evidence) {
	if ev.Process == nil {
		b.measures.release(ev.VM, Instance{})
		return
	}
	b.measures.release(ev.VM, ev.Process.Instance)
	b.lists.forget(ev.Process.Instance)
}
