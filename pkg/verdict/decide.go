package verdict

import (
	"fmt"
	"time"
)

// Decide decides on a flow: the strictest of the policy's rule, what stands
// against the owner processes and the VMs of both ends, and the knobs for owners
// that could not be found. A hidden owner is put on the suspect list, which the
// decision's Effects say.
func (b *Book) Decide(policy *Policy, req Request) Decision {
	d, hidden := b.decide(policy, &req)
	for _, ev := range hidden {
		d.Effects = append(d.Effects, b.Observe(ev)...)
	}
	return d
}

// Preview is Decide without learning anything: it says what would happen.
func (b *Book) Preview(policy *Policy, req Request) Decision {
	d, _ := b.decide(policy, &req)
	return d
}

// decide also returns evidence of the hidden owners that are not yet known as such.
func (b *Book) decide(policy *Policy, req *Request) (d Decision, hidden []Evidence) {
	rule := policy.Match(req.Flow)
	d.Rule, d.Line, d.Alert = rule.Name, rule.Line, rule.Alert
	d.RuleVerdict = rule.Action.Verdict()
	d.Evidence = append(d.Evidence, Evidence{
		Kind: EvidenceRule, Observed: req.Now, Verdict: d.RuleVerdict, Cause: CauseRule, Detail: ruleDetail(rule),
	})

	b.mu.RLock()
	defer b.mu.RUnlock()
	var evidence []Evidence
	d.SrcVM, evidence = b.judgeVM(req.Flow.Src.VM)
	d.Evidence = append(d.Evidence, evidence...)
	d.DstVM, evidence = b.judgeVM(req.Flow.Dst.VM)
	d.Evidence = append(d.Evidence, evidence...)

	src, dst := b.judgeEnd(&req.Flow.Src, &req.SrcOwner, req.Now), b.judgeEnd(&req.Flow.Dst, &req.DstOwner, req.Now)
	d.SrcProcess, d.DstProcess = src.process, dst.process
	d.FlowOnly = src.flow.strictest(dst.flow)
	d.Evidence = append(append(d.Evidence, src.evidence...), dst.evidence...)

	whole := Standing{d.RuleVerdict, CauseRule}
	for _, part := range [...]Standing{d.SrcProcess, d.DstProcess, d.SrcVM, d.DstVM, d.FlowOnly} {
		whole = whole.strictest(part)
	}
	d.Verdict, d.Cause = whole.Verdict, whole.Cause
	return d, append(src.hidden, dst.hidden...)
}

// end is what the owner of one end adds to a decision.
type end struct {
	process  Standing // Undecided where no owner is known
	flow     Standing
	evidence []Evidence
	hidden   []Evidence
}

func (b *Book) judgeEnd(at *Endpoint, owner *Owner, now time.Time) end {
	if owner.Observed.IsZero() {
		owner.Observed = now
	}
	var e end
	switch {
	case owner.State == OwnerUndeclared:
		return end{flow: innocent}
	case owner.State == OwnerKnown && len(owner.Processes) > 0:
		e = b.judgeOwners(at, owner)
	case owner.State == OwnerKnown || owner.State == OwnerNone:
		e = b.ownerless(at, owner, b.knobs.NoOwner, CauseNoOwner, "no process holds the port")
	default:
		return b.ownerless(at, owner, b.knobs.Introspection, CauseIntrospection, "the VM's memory could not be read")
	}
	b.judgeCandidates(at, owner, &e)
	return e
}

// judgeOwners judges all owners of a shared socket: any of them may have sent.
func (b *Book) judgeOwners(at *Endpoint, owner *Owner) end {
	e := end{process: innocent, flow: innocent}
	for _, p := range owner.Processes {
		if p.VM == "" {
			p.VM = at.VM
		}
		standing, evidence := b.judgeProcess(&p)
		e.process = e.process.strictest(standing)
		e.evidence = append(e.evidence, Evidence{
			Kind: EvidenceOwner, Observed: owner.Observed, VM: p.VM, Process: &p, Verdict: Forward, Detail: ownerDetail(&p),
		})
		e.addStanding(b, &p, evidence, owner.Observed)
	}
	return e
}

// addStanding adds what stands against a process.
func (e *end) addStanding(b *Book, p *Process, evidence []Evidence, observed time.Time) {
	for _, ev := range evidence {
		if ev.Kind == EvidenceHidden {
			ev.Observed = observed
			if !b.lists.hasLearned(p.Instance) {
				e.hidden = append(e.hidden, ev)
			}
		}
		e.evidence = append(e.evidence, ev)
	}
}

// judgeCandidates adds those who could have sent the packets without a socket
// that explains them. What stands against one of them makes the flow be checked.
// It is dropped only where the one who is to be dropped could alone have sent it,
// or he would get through by forging what his own sockets are not let through.
// Where others could have too, be it one that had the port before, dropping would
// let him do away with their packets. It is this flow that is judged, under the
// cause that has it looked at again, and no process.
func (b *Book) judgeCandidates(at *Endpoint, owner *Owner, e *end) {
	alone := len(owner.Candidates) == 1 && owner.Untraced == 0 && len(owner.Past)+len(owner.Processes) == 0
	for _, p := range owner.Candidates {
		if p.VM == "" {
			p.VM = at.VM
		}
		standing, evidence := b.judgeProcess(&p)
		e.evidence = append(e.evidence, Evidence{
			Kind: EvidenceCandidate, Observed: owner.Observed, VM: p.VM, Process: &p, Verdict: Forward, Detail: "could have sent it: " + ownerDetail(&p),
		})
		e.addStanding(b, &p, evidence, owner.Observed)
		if standing.Verdict == Drop && !alone {
			standing.Verdict = Check
		}
		if standing.Verdict > Forward {
			e.flow = e.flow.strictest(Standing{standing.Verdict, CauseNoOwner})
		}
	}
}

func (b *Book) ownerless(at *Endpoint, owner *Owner, knob Verdict, cause Cause, detail string) end {
	if owner.Detail != "" {
		detail += ": " + owner.Detail
	}
	e := end{flow: innocent, evidence: []Evidence{{
		Kind: EvidenceIntrospection, Observed: owner.Observed, VM: at.VM, Verdict: knob, Cause: cause, Detail: detail,
	}}}
	if knob > Forward {
		e.flow = Standing{knob, cause}
	}
	for _, p := range owner.Past {
		if p.VM == "" {
			p.VM = at.VM
		}
		standing, evidence := b.judgeProcess(&p)
		if standing.Verdict > e.flow.Verdict {
			e.flow = standing
		}
		e.evidence = append(e.evidence, Evidence{
			Kind: EvidenceOwner, Observed: owner.Observed, VM: p.VM, Process: &p, Verdict: Forward, Detail: "had the port before: " + ownerDetail(&p),
		})
		e.evidence = append(e.evidence, evidence...)
	}
	return e
}

func ruleDetail(r *Rule) string {
	if r.Line == 0 {
		return fmt.Sprintf("rule %s: %s: %s", r.Name, r, r.Action)
	}
	return fmt.Sprintf("rule %s (line %d): %s: %s", r.Name, r.Line, r, r.Action)
}

func ownerDetail(p *Process) string {
	if p.Path == "" {
		return fmt.Sprintf("%s of user %d in %s", p, p.UID, p.VM)
	}
	return fmt.Sprintf("%s (%s) of user %d in %s", p, escape(p.Path), p.UID, p.VM)
}
