package app

import (
	"context"
	"errors"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/vmgate/vmgate/pkg/loader"
)

const (
	cleanEvery      = 2 * time.Second
	verdictKeptPast = uint64(30 * time.Second) // a port's verdict is shown this long after it expired
	protoTCP        = 6
	tcpFIN, tcpRST  = 0x01, 0x04
	tcpACK          = 0x10
)

// housekeeper takes what has ended out of the kernel's maps, keeps each VM
// within its share of them, and frees the numbers that no flow bears.
type housekeeper struct {
	dp     *loader.Dataplane
	rules  *ruleIDs
	owners *owners
	clear  *clearances
	again  func(ctx context.Context, key loader.FlowKey, flow loader.Flow) error // decides a flow anew
	log    *slog.Logger
	now    func() *state

	census atomic.Pointer[census]
}

// census counts what the maps held at the last walk.
type census struct {
	flows, pending, verdicts int
	flowsOf                  map[uint32]int // by VM id of the initiator
	flowsBy                  map[uint32]int // by rule id
}

func (h *housekeeper) run(ctx context.Context, also func()) {
	tick := time.NewTicker(cleanEvery)
	defer tick.Stop()
	for {
		if err := h.clean(ctx); err != nil {
			h.log.Error("cannot clean the maps", "error", err)
		}
		also()
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// last returns the census of the last walk.
func (h *housekeeper) last() census {
	if c := h.census.Load(); c != nil {
		return *c
	}
	return census{}
}

func (h *housekeeper) clean(ctx context.Context) error {
	borneRules, borneOwners := map[uint32]bool{}, map[uint32]bool{}
	c := census{flowsOf: map[uint32]int{}, flowsBy: map[uint32]int{}}
	err := errors.Join(
		h.cleanFlows(ctx, &c, borneRules, borneOwners),
		h.cleanPending(&c),
		h.cleanVerdicts(&c, borneOwners),
	)
	h.census.Store(&c)
	if err != nil {
		return err // what was not seen may be borne still
	}
	h.rules.borne(borneRules)
	return h.owners.recycle(borneOwners)
}

func (h *housekeeper) cleanFlows(ctx context.Context, c *census, rules, owners map[uint32]bool) error {
	var errs []error
	quota, looked := h.now().cfg.Decision.FlowsPerVM, 0
	flows := h.dp.Flows()
	for key, flow := range flows.All() {
		vm := flow.Dir[flow.Initiator].VM
		if flowEnded(key.Proto(), flow, loader.Now()) || c.flowsOf[vm] >= quota {
			errs = append(errs, h.dp.DeleteFlow(key))
			continue
		}
		if unsure(flow) && !flow.Cleared && looked < unsurePerRound {
			looked++
			errs = append(errs, h.again(ctx, key, flow))
		}
		errs = append(errs, h.clear.consider(key, flow))
		c.flows++
		c.flowsOf[vm]++
		c.flowsBy[flow.Rule]++
		rules[flow.Rule] = true
		for _, dir := range flow.Dir {
			owners[dir.Owner] = true
		}
	}
	h.clear.walked()
	return errors.Join(append(errs, flows.Err())...)
}

// flowEnded mirrors the look-up's check in bpf/flow.h.
func flowEnded(proto uint8, flow loader.Flow, now uint64) bool {
	last := max(flow.Created, flow.Dir[0].LastSeen, flow.Dir[1].LastSeen)
	if last > now {
		return false
	}
	return now-last > uint64(idleTime(proto, flow)) || flow.Expires != 0 && now > flow.Expires
}

func idleTime(proto uint8, flow loader.Flow) time.Duration {
	switch proto {
	case protoTCP:
		either := flow.Dir[0].TCPFlags | flow.Dir[1].TCPFlags
		both := flow.Dir[0].TCPFlags & flow.Dir[1].TCPFlags
		if either&(tcpFIN|tcpRST) != 0 || both&tcpACK == 0 {
			return tcpTransientIdle
		}
		return tcpEstablishedIdle
	case 17:
		return udpIdle
	}
	return otherIdle
}

func (h *housekeeper) cleanPending(c *census) error {
	var errs []error
	pending := h.dp.PendingAll()
	for key, p := range pending.All() {
		if last := p.LastSeen; loader.Now() > last && loader.Now()-last > uint64(pendingTimeout) {
			errs = append(errs, h.dp.DeletePending(key))
			continue
		}
		c.pending++
	}
	return errors.Join(append(errs, pending.Err())...)
}

func (h *housekeeper) cleanVerdicts(c *census, owners map[uint32]bool) error {
	var errs []error
	verdicts := h.dp.Verdicts()
	for key, v := range verdicts.All() {
		if now := loader.Now(); v.Expires != 0 && now > v.Expires && now-v.Expires > verdictKeptPast {
			errs = append(errs, h.dp.DeleteVerdict(key))
			continue
		}
		c.verdicts++
		owners[v.Owner] = true
	}
	return errors.Join(append(errs, verdicts.Err())...)
}
