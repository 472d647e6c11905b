package app

import (
	"context"
	"fmt"
	"time"

	"github.com/vmgate/vmgate/internal/api"
	"github.com/vmgate/vmgate/pkg/loader"
	"github.com/vmgate/vmgate/pkg/verdict"
)

// maxListed bounds the flows and verdicts in one answer.
const maxListed = 100_000

// Flows implements api.Backend.
func (b backend) Flows(context.Context) ([]api.Flow, error) {
	s := b.state.Load()
	var flows []api.Flow
	entries := b.dp.Flows()
	for key, flow := range entries.All() {
		if len(flows) == maxListed {
			break
		}
		if !flowEnded(key.Proto(), flow, loader.Now()) {
			flows = append(flows, b.describeFlow(s, key, flow))
		}
	}
	return flows, entries.Err()
}

func (b backend) describeFlow(s *state, key loader.FlowKey, flow loader.Flow) api.Flow {
	standing, err := b.effects.strictest(flow)
	if err != nil {
		b.log.Error("cannot read the verdicts on a flow", "flow", key, "error", err)
	}
	rule, _ := b.rules.get(flow.Rule)
	end := func(i int) api.FlowEnd {
		dir := flow.Dir[i]
		e := api.FlowEnd{Addr: key.Addr(i).Addr().String(), Port: key.Addr(i).Port(), Packets: dir.Packets, Bytes: dir.Bytes}
		if n := s.inv.byID[dir.VM]; n != nil {
			e.VM = n.name
		}
		if p, _, ok := b.owners.get(dir.Owner); ok {
			e.Process = &p
		}
		return e
	}
	described := api.Flow{
		Proto: api.ProtoName(key.Proto()), Src: end(flow.Initiator), Dst: end(1 - flow.Initiator),
		Verdict: standing.Verdict.String(), Cause: standing.Cause.String(), Rule: rule,
		Age: age(flow.Created), Idle: age(max(flow.Created, flow.Dir[0].LastSeen, flow.Dir[1].LastSeen)),
	}
	if outer, inner := key.VLAN(); inner != 0 {
		described.VLAN = fmt.Sprintf("%d.%d", outer, inner)
	} else if outer != 0 {
		described.VLAN = fmt.Sprint(outer)
	}
	return described
}

// Verdicts implements api.Backend.
func (b backend) Verdicts(context.Context) ([]api.PortVerdict, error) {
	s := b.state.Load()
	var verdicts []api.PortVerdict
	entries := b.dp.Verdicts()
	for key, entry := range entries.All() {
		if len(verdicts) == maxListed {
			break
		}
		v := api.PortVerdict{
			Port:     api.Port{Proto: api.ProtoName(key.Proto), Port: key.Port},
			Verdict:  verdict.Verdict(entry.Verdict).String(),
			Cause:    verdict.Cause(entry.Cause).String(),
			Observed: wallClock(entry.Observed),
		}
		if n := s.inv.byID[key.VM]; n != nil {
			v.VM = n.name
		}
		if p, _, ok := b.owners.get(entry.Owner); ok {
			v.Owner = &p
		}
		if entry.Expires != 0 {
			expires := wallClock(entry.Expires)
			v.Expires = &expires
		}
		verdicts = append(verdicts, v)
	}
	return verdicts, entries.Err()
}

// wallClock turns a monotonic time of the kernel into the time of day.
func wallClock(mono uint64) time.Time {
	return time.Now().Add(time.Duration(mono - loader.Now()))
}

// SetVerdict implements api.Backend.
func (b backend) SetVerdict(_ context.Context, change api.VerdictChange) error {
	key, err := b.verdictKey(change.Port)
	if err != nil {
		return err
	}
	v, err := verdict.ParseVerdict(change.Verdict)
	if err != nil {
		return fmt.Errorf("%w: %w", api.ErrInvalid, err)
	}
	entry := loader.VerdictEntry{Verdict: uint32(v), Cause: uint32(verdict.CauseOperator), Observed: loader.Now()}
	if change.For > 0 {
		entry.Expires = entry.Observed + uint64(change.For)
	}
	if err := b.dp.PutVerdict(key, entry); err != nil {
		return err
	}
	b.journal.note("operator", fmt.Sprintf("verdict %s on %s %s/%d by %s", v, change.VM, change.Proto, change.Port.Port, change.By))
	return b.endFlowsOf(key)
}

// DeleteVerdict implements api.Backend.
func (b backend) DeleteVerdict(_ context.Context, port api.Port) error {
	key, err := b.verdictKey(port)
	if err != nil {
		return err
	}
	entries := b.dp.Verdicts()
	for known := range entries.All() {
		if known == key {
			return b.dp.DeleteVerdict(key)
		}
	}
	return fmt.Errorf("%w: there is no verdict on %s %s/%d", api.ErrNotFound, port.VM, port.Proto, port.Port)
}

func (b backend) verdictKey(port api.Port) (loader.VerdictKey, error) {
	n := b.state.Load().inv.byName[port.VM]
	if n == nil {
		return loader.VerdictKey{}, fmt.Errorf("%w: there is no VM %q in the inventory", api.ErrNotFound, port.VM)
	}
	proto, err := api.ParseProto(port.Proto)
	if err != nil {
		return loader.VerdictKey{}, err
	}
	if !verdict.HasPorts(proto) {
		return loader.VerdictKey{}, fmt.Errorf("%w: %s has no ports", api.ErrInvalid, port.Proto)
	}
	return loader.VerdictKey{VM: n.id, Proto: proto, Port: port.Port}, nil
}

// endFlowsOf has the flows of a port decided anew, so that a verdict set by
// hand reaches them as well.
func (b backend) endFlowsOf(port loader.VerdictKey) error {
	flows := b.dp.Flows()
	for key, flow := range flows.All() {
		for i, dir := range flow.Dir {
			if dir.VM == port.VM && key.Proto() == port.Proto && key.Addr(i).Port() == port.Port {
				if err := b.dp.DeleteFlow(key); err != nil {
					return err
				}
			}
		}
	}
	return flows.Err()
}
