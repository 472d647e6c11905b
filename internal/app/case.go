package app

import (
	"context"
	"sync"
	"time"

	"github.com/vmgate/vmgate/pkg/loader"
	"github.com/vmgate/vmgate/pkg/verdict"
)

// flowCase is one flow under decision.
type flowCase struct {
	undecided *undecided
	state     *state
	initiator int // index into the key's ends
	flow      loader.Flow
	request   verdict.Request
}

// caseOf prepares the decision on a pending flow: who the ends are, and which of
// them began.
func (d *decider) caseOf(u *undecided) *flowCase {
	old, known, _ := d.dp.Flow(u.key) // no old entry is as good as an unreadable one
	pending, from := u.pending, u.pending.From
	flow := loader.Flow{Created: loader.Now(), SynSeq: pending.SynSeq, Initiator: initiator(u, old, known)}
	flow.Dir[from] = loader.FlowDir{
		SrcMAC: pending.SrcMAC, DstMAC: pending.DstMAC,
		InPort: pending.InPort, OutPort: pending.OutPort,
		VM: pending.VM[0], LastSeen: flow.Created, TCPFlags: pending.TCPFlags,
	}
	flow.Dir[1-from] = loader.FlowDir{
		SrcMAC: pending.DstMAC, DstMAC: pending.SrcMAC,
		InPort: pending.OutPort, OutPort: pending.InPort,
		VM: pending.VM[1], LastSeen: flow.Created,
	}
	if known && pending.SynSeq == 0 { // the same connection, decided anew
		keep(&flow, old)
	}
	return d.newCase(u, flow)
}

// caseOfFlow prepares the decision on a flow that is decided already.
func (d *decider) caseOfFlow(key loader.FlowKey, flow loader.Flow) *flowCase {
	return d.newCase(&undecided{key: key}, flow)
}

func (d *decider) newCase(u *undecided, flow loader.Flow) *flowCase {
	c := &flowCase{undecided: u, state: d.now(), initiator: flow.Initiator, flow: flow}
	inv := c.state.inv
	outer, inner := u.key.VLAN()
	c.request = verdict.Request{
		Flow: verdict.Flow{
			Src:   endpoint(inv.byID[flow.Dir[c.initiator].VM], u.key.Addr(c.initiator)),
			Dst:   endpoint(inv.byID[flow.Dir[1-c.initiator].VM], u.key.Addr(1-c.initiator)),
			Proto: u.key.Proto(), VLAN: outer, Inner: inner,
		},
		Now: time.Now(),
	}
	return c
}

// keep takes over what the kernel has counted and seen of the same connection.
func keep(flow *loader.Flow, old loader.Flow) {
	for i := range flow.Dir {
		flow.Dir[i].Packets, flow.Dir[i].Bytes = old.Dir[i].Packets, old.Dir[i].Bytes
		flow.Dir[i].LastSeen = max(flow.Dir[i].LastSeen, old.Dir[i].LastSeen)
		flow.Dir[i].TCPFlags |= old.Dir[i].TCPFlags
	}
	flow.SynSeq, flow.Created = old.SynSeq, old.Created
}

// initiator says which end of a flow began it. A packet from the middle of a
// connection does not tell: an entry from before does, else the end with the
// lower port is taken for the server.
func initiator(u *undecided, old loader.Flow, known bool) int {
	const (
		tcp      = 6
		syn, ack = 0x02, 0x10
	)
	from := u.pending.From
	if u.key.Proto() == tcp {
		switch u.pending.TCPFlags & (syn | ack) {
		case syn:
			return from
		case syn | ack:
			return 1 - from
		}
	}
	switch {
	case known:
		return old.Initiator
	case u.key.Proto() == tcp && u.key.Addr(from).Port() < u.key.Addr(1-from).Port():
		return 1 - from
	}
	return from
}

// lookUp asks introspection for the owners of both ends, by the deadline. A
// flow that the policy drops needs no owner to be dropped.
func (c *flowCase) lookUp(ctx context.Context) {
	if c.state.policy.Match(c.request.Flow).Action.Verdict() == verdict.Drop && !c.state.monitor() {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, c.state.cfg.Decision.Deadline)
	defer cancel()
	flow := c.request.Flow
	var group sync.WaitGroup
	look := func(owner *verdict.Owner, end, peer verdict.Endpoint) {
		if owner.State != verdict.OwnerKnown {
			group.Go(func() { *owner = c.state.ownerOf(ctx, end, peer, flow.Proto) })
		}
	}
	look(&c.request.SrcOwner, flow.Src, flow.Dst)
	look(&c.request.DstOwner, flow.Dst, flow.Src)
	group.Wait()
}
