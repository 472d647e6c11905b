package app

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/vmgate/vmgate/pkg/loader"
	"github.com/vmgate/vmgate/pkg/verdict"
)

// unsurePerRound bounds the owner look-ups for flows that were decided without
// an owner, in one round of housekeeping.
const unsurePerRound = 8

// revisitAll decides all flows again, by the owners that they bear: the policy
// has changed, and no packet shall be held or lost for that.
func (d *decider) revisitAll(ctx context.Context) error {
	var errs []error
	flows := d.dp.Flows()
	for key, flow := range flows.All() {
		if d.traced(flow) {
			errs = append(errs, d.revisit(ctx, key, flow, false))
		} else {
			errs = append(errs, d.dp.DeleteFlow(key))
		}
	}
	return errors.Join(append(errs, flows.Err())...)
}

// traced says whether the owners of a flow were looked for: not so where the
// policy dropped it without. Such a flow begins anew.
func (d *decider) traced(flow loader.Flow) bool {
	for _, dir := range flow.Dir {
		if dir.Owner == 0 && d.now().inv.byID[dir.VM].hasMemory() && !unsure(flow) {
			return false
		}
	}
	return true
}

// revisit decides a flow again while its packets go on by the entry that it
// has. With look, an owner that was not found before is looked for again.
func (d *decider) revisit(ctx context.Context, key loader.FlowKey, old loader.Flow, look bool) error {
	c := d.caseOfFlow(key, old)
	c.request.SrcOwner = d.bearer(old.Dir[c.initiator].Owner)
	c.request.DstOwner = d.bearer(old.Dir[1-c.initiator].Owner)
	if look {
		c.lookUp(ctx)
	}
	decision := d.book.Decide(c.state.policy, c.request)
	if err := d.enforce(c, decision); err != nil {
		return fmt.Errorf("cannot decide %s again: %w", key, err)
	}
	if !look || verdict.Cause(old.Cause) == verdict.CauseAlert {
		c.flow.Verdict, c.flow.Cause, c.flow.Expires = old.Verdict, old.Cause, old.Expires
	}
	before, err := d.effects.strictest(old)
	if err != nil {
		return err
	}
	now, known, err := d.dp.Flow(key)
	if err != nil || !known {
		return err // it has ended meanwhile
	}
	keep(&c.flow, now)
	c.flow.Cleared = false // what it rested on is decided anew
	if err := d.dp.PutFlow(key, c.flow); err != nil {
		return err
	}
	if before.Verdict != decision.Verdict {
		d.journal.decision(c, decision, time.Since(c.request.Now))
	}
	return nil
}

// bearer is the owner behind a number that a flow bears.
func (d *decider) bearer(id uint32) verdict.Owner {
	p, _, ok := d.owners.get(id)
	if !ok {
		return verdict.Owner{State: verdict.OwnerUndeclared}
	}
	return verdict.Owner{State: verdict.OwnerKnown, Processes: []verdict.Process{p}, Detail: "attributed when the flow began"}
}

// unsure says whether a flow was decided without an owner that may be found now.
func unsure(flow loader.Flow) bool {
	cause := verdict.Cause(flow.Cause)
	return cause == verdict.CauseNoOwner || cause == verdict.CauseIntrospection
}
