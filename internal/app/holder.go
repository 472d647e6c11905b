package app

import (
	"context"
	"sync"

	"github.com/vmgate/vmgate/internal/punt"
	"github.com/vmgate/vmgate/pkg/loader"
)

// undecided is a flow whose packets are held until it is decided.
type undecided struct {
	key     loader.FlowKey
	pending loader.Pending
	packets []*punt.Packet // in order of arrival; empty where nothing can be held
}

// holder keeps the packets of undecided flows, and gives each flow once to the
// worker of the VM that sent it: one VM's flood waits in its own line.
type holder struct {
	perFlow, perVM int
	decide         func(context.Context, *undecided)

	mu    sync.Mutex
	flows map[loader.FlowKey]*undecided
	lines map[uint32]chan *undecided // by sending VM
	group sync.WaitGroup
	ctx   context.Context //nolint:containedctx // the lifetime of the workers, which start on demand
}

func newHolder(ctx context.Context, perFlow, perVM int, decide func(context.Context, *undecided)) *holder {
	return &holder{
		perFlow: perFlow, perVM: perVM, decide: decide, ctx: ctx,
		flows: map[loader.FlowKey]*undecided{}, lines: map[uint32]chan *undecided{},
	}
}

// join adds a packet to its flow if that is being decided already.
func (h *holder) join(key loader.FlowKey, p *punt.Packet) (joined, room bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	flow := h.flows[key]
	if flow == nil {
		return false, true
	}
	if len(flow.packets) >= h.perFlow {
		return true, false
	}
	flow.packets = append(flow.packets, p)
	return true, true
}

// admit puts a new flow in its VM's line. It returns false if the line is full.
func (h *holder) admit(flow *undecided) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.ctx.Err() != nil {
		return false
	}
	if known := h.flows[flow.key]; known != nil {
		if len(known.packets)+len(flow.packets) > h.perFlow {
			return false
		}
		known.packets = append(known.packets, flow.packets...)
		return true
	}
	vm := flow.pending.VM[0]
	line := h.lines[vm]
	if line == nil {
		line = make(chan *undecided, h.perVM)
		h.lines[vm] = line
		h.group.Go(func() { h.work(line) })
	}
	select {
	case line <- flow:
		h.flows[flow.key] = flow
		return true
	default:
		return false
	}
}

// work decides the flows of one VM in the order in which they came.
func (h *holder) work(line chan *undecided) {
	for {
		select {
		case <-h.ctx.Done():
			return
		case flow := <-line:
			h.decide(h.ctx, flow)
		}
	}
}

// take ends the holding of a flow and returns the packets that are held. Packets
// that come later find the decision in the maps.
func (h *holder) take(flow *undecided) []*punt.Packet {
	h.mu.Lock()
	defer h.mu.Unlock()
	packets := flow.packets
	flow.packets = nil
	delete(h.flows, flow.key)
	return packets
}

// depth is the number of flows that wait.
func (h *holder) depth() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.flows)
}

// wait returns when all workers have ended, and drops what is held still.
func (h *holder) wait() {
	h.group.Wait()
	h.mu.Lock()
	defer h.mu.Unlock()
	for key, flow := range h.flows {
		for _, p := range flow.packets {
			_ = p.Drop() // the queue closes next and would drop it as well
		}
		delete(h.flows, key)
	}
}
