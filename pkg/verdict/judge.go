package verdict

// JudgeProcess says how the process stands, and on what evidence: the strictest
// of the malicious list, the operator's measures, the suspect list, and being
// hidden. A process that nothing is known against stands at Forward.
func (b *Book) JudgeProcess(p Process) (Standing, []Evidence) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	return b.judgeProcess(&p)
}

// JudgeVM says how the VM as a whole stands, and on what evidence: the strictest
// of the operator's measures and the reports about it. A VM that nothing is
// known against, and that which is no VM (""), stands at Forward.
func (b *Book) JudgeVM(vm string) (Standing, []Evidence) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	return b.judgeVM(vm)
}

func (b *Book) judgeProcess(p *Process) (Standing, []Evidence) {
	var evidence []Evidence
	for _, entry := range b.lists.matching(p) {
		evidence = append(evidence, entry.evidence(p))
	}
	evidence = append(evidence, b.measures.about(p.VM, p.Instance)...)
	if p.Hidden {
		evidence = append(evidence, Evidence{
			Kind: EvidenceHidden, VM: p.VM, Process: p, Verdict: Check, Cause: CauseHidden,
			Detail: p.String() + " is hidden from the guest's own listing",
		})
	}
	return standingOn(evidence), evidence
}

func (b *Book) judgeVM(vm string) (Standing, []Evidence) {
	if vm == "" {
		return innocent, nil
	}
	evidence := b.measures.about(vm, Instance{})
	return standingOn(evidence), evidence
}

func standingOn(evidence []Evidence) Standing {
	standing := innocent
	for i := range evidence {
		standing = standing.strictest(Standing{evidence[i].Verdict, evidence[i].Cause})
	}
	return standing
}
