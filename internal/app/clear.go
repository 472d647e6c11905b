package app

import (
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/vmgate/vmgate/internal/event"
	"github.com/vmgate/vmgate/internal/metrics"
	"github.com/vmgate/vmgate/pkg/loader"
	"github.com/vmgate/vmgate/pkg/verdict"
)

/*
clearances has flows leave the IDS that have been clean for long enough, where the
policy's rule says so, and brings them back when anything new is held against one of
their ends.

The clearance is a mark in the flow's own entry: the kernel lifts what says check of
that flow alone, and never what says drop. The daemon gives it, and it knows to which
flows it did, so that taking it back is a write for each of them. What changes a
verdict does so under the same lock (during): no clearance is given meanwhile on what
stood before.

What an operator has ordered by hand is not lifted.
*/
type clearances struct {
	dp      *loader.Dataplane
	book    *verdict.Book
	rules   *ruleIDs
	strict  func(loader.Flow) (verdict.Standing, error) // the verdict that the kernel would reach
	owners  *owners
	journal *journal
	metrics *metrics.Metrics
	log     *slog.Logger
	now     func() *state

	mu    sync.Mutex
	clean map[loader.FlowKey]*cleanFlow // those that may be cleared, or are
}

// cleanFlow is what a flow had sent when it was last suspected.
type cleanFlow struct {
	since          time.Time
	packets, bytes uint64
	cleared        bool
	seen           bool // in this walk over the flows
}

// consider looks at a flow in a walk over all, and clears it if it is time.
func (c *clearances) consider(key loader.FlowKey, flow loader.Flow) error {
	after, may := c.now().clear[flow.Rule]
	if !may && !flow.Cleared {
		return nil // the common case; what was noted of it goes with the walk
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	flow, known, err := c.dp.Flow(key) // as it is now that nothing changes any more
	if err != nil || !known {
		return err
	}
	standing, err := c.strict(flow)
	f := c.clean[key]
	switch {
	case f == nil && flow.Cleared: // by an earlier daemon
		c.note(key, flow).cleared = true
		return nil
	case f != nil && f.cleared && flow.Cleared:
		f.seen = true
		return nil
	case f != nil && f.cleared: // decided anew since
		c.note(key, flow)
		return nil
	case err != nil || standing.Verdict != verdict.Check:
		return err
	case f == nil:
		c.note(key, flow)
		return nil
	}
	f.seen = true
	packets, bytes := sentBy(flow)
	if packets < f.packets || bytes < f.bytes { // another flow by now
		c.note(key, flow)
		return nil
	}
	if !after.Reached(packets-f.packets, bytes-f.bytes, time.Since(f.since)) || c.byHand(flow) {
		return nil
	}
	f.cleared = true
	flow.Cleared = true
	c.metrics.CountClearance("given")
	name, _ := c.rules.get(flow.Rule)
	c.tell(key, flow, fmt.Sprintf("found clean over %d packets, %d bytes, %v: forwarded again (rule %s)",
		packets-f.packets, bytes-f.bytes, time.Since(f.since).Round(time.Second), name))
	return c.dp.PutFlow(key, flow)
}

func (c *clearances) note(key loader.FlowKey, flow loader.Flow) *cleanFlow {
	f := &cleanFlow{since: time.Now(), seen: true}
	f.packets, f.bytes = sentBy(flow)
	c.clean[key] = f
	return f
}

func sentBy(flow loader.Flow) (packets, bytes uint64) {
	return flow.Dir[0].Packets + flow.Dir[1].Packets, flow.Dir[0].Bytes + flow.Dir[1].Bytes
}

// walked ends a walk: what was not seen in it has ended, or is not checked any more.
func (c *clearances) walked() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for key, f := range c.clean {
		if !f.seen {
			delete(c.clean, key)
		}
		f.seen = false
	}
}

// byHand says whether an operator has ordered that an end of the flow be inspected.
func (c *clearances) byHand(flow loader.Flow) bool {
	ordered := func(evidence []verdict.Evidence) bool {
		for _, e := range evidence {
			if e.Kind == verdict.EvidenceOperator || e.Kind == verdict.EvidenceVMRule {
				return true
			}
		}
		return false
	}
	for _, dir := range flow.Dir {
		if n := c.now().inv.byID[dir.VM]; n != nil {
			if _, evidence := c.book.JudgeVM(n.name); ordered(evidence) {
				return true
			}
		}
		if p, _, ok := c.owners.get(dir.Owner); ok {
			if _, evidence := c.book.JudgeProcess(p); ordered(evidence) {
				return true
			}
		}
	}
	return false
}

// during writes a change of verdicts, and takes the clearance of the flows back that
// it is about: first, so that no packet passes between the two.
func (c *clearances) during(about func(loader.Flow) bool, why string, write func() error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	for key, f := range c.clean {
		flow, ok, err := c.dp.Flow(key)
		if err != nil || !ok {
			if err != nil {
				c.log.Error("cannot take a clearance back", "flow", key, "error", err)
			}
			continue
		}
		if !about(flow) {
			continue
		}
		wasCleared := f.cleared
		c.note(key, flow)
		if !wasCleared {
			continue
		}
		flow.Cleared = false
		if err := c.dp.PutFlow(key, flow); err != nil {
			return fmt.Errorf("cannot take the clearance of %s back: %w", key, err)
		}
		c.metrics.CountClearance("taken")
		c.tell(key, flow, "inspected again: "+why)
	}
	return write()
}

// revoke takes the clearance of flows back.
func (c *clearances) revoke(about func(loader.Flow) bool, why string) error {
	return c.during(about, why, func() error { return nil })
}

func everyFlow(loader.Flow) bool { return true }

func (c *clearances) tell(key loader.FlowKey, flow loader.Flow, what string) {
	i := flow.Initiator
	src, dst := key.Addr(i), key.Addr(1-i)
	e := event.Event{Type: "clearance", Proto: event.ProtoName(key.Proto()), Message: what}
	e.SrcIP, e.SrcPort, e.DestIP, e.DestPort = ends(src, dst)
	outer, inner := key.VLAN()
	e.VLAN = vlans(outer, inner)
	e.FlowID = event.FlowID(key.Proto(), src, dst, uint32(outer)<<16|uint32(inner))
	e.CommunityID = event.CommunityID(key.Proto(), src, dst)
	inv := c.now().inv
	if n := inv.byID[flow.Dir[i].VM]; n != nil {
		e.SrcVM = n.name
	}
	if n := inv.byID[flow.Dir[1-i].VM]; n != nil {
		e.DestVM = n.name
	}
	c.journal.write(e)
}
