package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/vmgate/vmgate/internal/metrics"
	"github.com/vmgate/vmgate/internal/punt"
	"github.com/vmgate/vmgate/pkg/loader"
	"github.com/vmgate/vmgate/pkg/verdict"
)

// decider decides undecided flows: it asks introspection for the owners, the
// book for the decision, writes it to the kernel's maps, and lets the held
// packets go on.
type decider struct {
	dp      *loader.Dataplane
	book    *verdict.Book
	owners  *owners
	effects *effects
	holder  *holder
	journal *journal
	metrics *metrics.Metrics
	log     *slog.Logger
	now     func() *state // the configuration in force
}

// handle takes a held packet from a punt queue. It never blocks.
func (d *decider) handle(p *punt.Packet) {
	key, pending, ok := d.find(p)
	if !ok {
		d.straggler(key, p)
		return
	}
	if joined, room := d.holder.join(key, p); joined {
		if !room {
			d.drop(p)
		}
		return
	}
	if !d.holder.admit(&undecided{key: key, pending: pending, packets: []*punt.Packet{p}}) {
		d.drop(p)
		if err := d.dp.DeletePending(key); err != nil {
			d.log.Error("cannot end a refused flow", "flow", key, "error", err)
		}
	}
}

// undecidable takes a flow whose packets the kernel could not hold: it is
// decided for the sender's next try.
func (d *decider) undecidable(key loader.FlowKey) {
	pending, ok, err := d.dp.Pending(key)
	if err != nil || !ok {
		return // it has expired, or was decided meanwhile
	}
	d.holder.admit(&undecided{key: key, pending: pending})
}

// find looks up the pending entry of a held packet's flow. The packet does not
// tell its layer 2 group, of which there are few.
func (d *decider) find(p *punt.Packet) (key loader.FlowKey, pending loader.Pending, ok bool) {
	for _, group := range d.now().inv.groups() {
		key, _ = loader.NewFlowKey(p.Proto, p.Src, p.Dst, p.VLAN, 0, uint8(group))
		pending, ok, err := d.dp.Pending(key)
		if err != nil {
			d.log.Error("cannot read a pending flow", "flow", key, "error", err)
		}
		if ok {
			return key, pending, true
		}
	}
	return key, pending, false
}

// straggler is a packet that was sent up just before its flow was decided: it
// follows the decision. Without one it is dropped, and its sender retries.
func (d *decider) straggler(key loader.FlowKey, p *punt.Packet) {
	flow, ok, err := d.dp.Flow(key)
	if err != nil || !ok {
		d.drop(p)
		return
	}
	_, from := loader.NewFlowKey(p.Proto, p.Src, p.Dst, p.VLAN, 0, key.Group())
	d.release(key, []*punt.Packet{p}, d.standing(flow), from == flow.Initiator)
}

// standing is the verdict that the kernel would reach on a flow now.
func (d *decider) standing(flow loader.Flow) verdict.Verdict {
	standing, err := d.effects.strictest(flow)
	if err != nil {
		d.log.Error("cannot read the verdicts on a flow", "error", err)
		return verdict.Drop
	}
	return standing.Verdict
}

func (d *decider) drop(p *punt.Packet) {
	if err := p.Drop(); err != nil && !errors.Is(err, punt.ErrClosed) {
		d.log.Error("cannot drop a held packet", "error", err)
	}
}

// release lets held packets go on, in order. What is not plainly forward or
// check is dropped.
func (d *decider) release(key loader.FlowKey, packets []*punt.Packet, v verdict.Verdict, fromInitiator bool) {
	for _, p := range packets {
		var err error
		switch {
		case v == verdict.Forward || v != verdict.Undecided && d.now().monitor():
			err = p.Release(loader.MarkForward)
		case v == verdict.Check && fromInitiator:
			err = p.Release(loader.MarkCheckIn | key.IDSSlot())
		case v == verdict.Check:
			err = p.Release(loader.MarkCheckOut | key.IDSSlot())
		default:
			err = p.Drop()
		}
		if err != nil && !errors.Is(err, punt.ErrClosed) { // closed: the daemon stops, and it was dropped
			d.log.Error("cannot release a held packet", "verdict", v, "error", err)
		}
	}
}

// decide decides one flow. Whatever fails on the way, its packets do not pass.
func (d *decider) decide(ctx context.Context, u *undecided) {
	begin := time.Now()
	c := d.caseOf(u)
	c.lookUp(ctx)
	decision := d.book.Decide(c.state.policy, c.request)
	err := d.enforce(c, decision)
	if err != nil {
		d.log.Error("cannot enforce a decision, its packets are dropped", "flow", u.key, "error", err)
		decision.Verdict = verdict.Drop
	}
	d.finish(c, decision, err)
	if len(u.packets) > 0 {
		begin = u.packets[0].Received
	}
	took := time.Since(begin)
	d.metrics.ObserveDecision(decision.Verdict.String(), took)
	d.journal.decision(c, decision, took)
}

// finish lets the held packets go on and only then opens the way for those that
// follow, so that nothing overtakes.
func (d *decider) finish(c *flowCase, decision verdict.Decision, failed error) {
	packets := d.holder.take(c.undecided)
	d.release(c.undecided.key, packets, decision.Verdict, c.undecided.pending.From == c.initiator)
	if failed == nil {
		if err := d.dp.PutFlow(c.undecided.key, c.flow); err != nil {
			d.log.Error("cannot write a decided flow; its next packet is decided anew", "flow", c.undecided.key, "error", err)
		}
	}
	if err := d.dp.DeletePending(c.undecided.key); err != nil {
		d.log.Error("cannot end a pending flow", "flow", c.undecided.key, "error", err)
	}
}

// enforce writes the parts of the decision at their scopes and completes the
// case's flow entry.
func (d *decider) enforce(c *flowCase, decision verdict.Decision) error {
	if err := d.effects.apply(decision.Effects); err != nil {
		return err
	}
	c.flow.Rule = c.state.rules[decision.Rule]
	if c.flow.Rule == 0 {
		return fmt.Errorf("rule %q has no id", decision.Rule)
	}
	initiator, responder := &c.flow.Dir[c.initiator], &c.flow.Dir[1-c.initiator]
	var errs [2]error
	initiator.Owner, errs[0] = d.owned(c, c.request.Flow.Src, c.request.SrcOwner, decision.SrcProcess)
	responder.Owner, errs[1] = d.owned(c, c.request.Flow.Dst, c.request.DstOwner, decision.DstProcess)
	c.flow.Verdict, c.flow.Cause = uint32(verdict.Forward), uint32(verdict.CauseNone)
	if decision.FlowOnly.Verdict > verdict.Forward {
		c.flow.Verdict, c.flow.Cause = uint32(decision.FlowOnly.Verdict), uint32(decision.FlowOnly.Cause)
	}
	return errors.Join(errs[:]...)
}

// owned gives the owner of one end its number, with the verdict that stands on
// it, and notes it as the holder of the port.
func (d *decider) owned(c *flowCase, end verdict.Endpoint, owner verdict.Owner, standing verdict.Standing) (uint32, error) {
	if owner.State != verdict.OwnerKnown {
		return 0, nil
	}
	id, err := d.owners.set(d.strictestOwner(owner), standing)
	if err != nil {
		return 0, err
	}
	if !verdict.HasPorts(c.request.Flow.Proto) || owner.Observed.IsZero() {
		return id, nil // no port, or noted when the flow began
	}
	n := c.state.inv.byName[end.VM]
	return id, d.effects.notePort(n.id, c.request.Flow.Proto, end.Port, id, owner.Observed, c.state.cfg.Decision.AttributionAge)
}

// strictestOwner chooses, among the owners of a shared socket, the one with the
// strictest verdict: the flow ends with it.
func (d *decider) strictestOwner(owner verdict.Owner) verdict.Process {
	chosen, strictest := owner.Processes[0], verdict.Undecided
	for _, p := range owner.Processes {
		if standing, _ := d.book.JudgeProcess(p); standing.Verdict > strictest {
			chosen, strictest = p, standing.Verdict
		}
	}
	return chosen
}
