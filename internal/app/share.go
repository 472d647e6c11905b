package app

import (
	"context"
	"time"

	"github.com/vmgate/vmgate/internal/config"
	"github.com/vmgate/vmgate/pkg/loader"
)

// sharedAnewAfter is how long the flows of an engine that is down follow failure.ids
// before the others take them over: it is back by then if it only had to start. Those
// who take them over meet connections in their middle.
const sharedAnewAfter = 5 * time.Second

// tell writes the kernel's settings by a configuration and the engines' states.
func (i *ids) tell(cfg *config.Config) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.tellLocked(cfg)
}

func (i *ids) tellLocked(cfg *config.Config) error {
	s := settingsFor(cfg)
	for number := range idsPorts(cfg) {
		s.IDS[number] = loader.IDSInstance{In: idsInPort(number), Out: idsOutPort(number), State: downState(cfg)}
		if number < len(i.instances) && i.instances[number].up {
			s.IDS[number].State = loader.IDSUp
		}
	}
	s.Slots = slotsOf(len(idsPorts(cfg)), i.gone(time.Now()))
	return i.dp.SetSettings(s)
}

// downState is what holds for the flows of an engine that is down.
func downState(cfg *config.Config) loader.IDSState {
	if cfg.Failure.IDS == "open" {
		return loader.IDSDownOpen
	}
	return loader.IDSDownClosed
}

// gone says of each engine whether it has been down for so long that the others take
// over; the caller holds the lock.
func (i *ids) gone(now time.Time) []bool {
	gone := make([]bool, len(i.instances))
	for number, n := range i.instances {
		gone[number] = !n.up && now.Sub(n.down) >= sharedAnewAfter
	}
	return gone
}

// slotsOf shares the slots among engines. Those of one that is gone go round among
// the others, and all others stay where they are; if all are gone, nothing moves.
func slotsOf(engines int, gone []bool) (slots [loader.IDSSlots]uint8) {
	var there []uint8
	for number := range engines {
		if number >= len(gone) || !gone[number] {
			there = append(there, uint8(number))
		}
	}
	for slot := range slots {
		if engines == 0 {
			break
		}
		its := slot % engines
		slots[slot] = uint8(its)
		if its < len(gone) && gone[its] && len(there) > 0 {
			slots[slot] = there[slot/engines%len(there)]
		}
	}
	return slots
}

// shareOut shares the flows anew when an engine has been down for too long. When one
// comes back its flows return to it at once, by set.
func (i *ids) shareOut(ctx context.Context) {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	var before [loader.IDSSlots]uint8
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		cfg := i.now().cfg
		i.mu.Lock()
		slots := slotsOf(len(idsPorts(cfg)), i.gone(time.Now()))
		var err error
		if slots != before {
			err = i.tellLocked(cfg)
		}
		i.mu.Unlock()
		if err != nil {
			i.log.Error("cannot share the flows among the engines anew", "error", err)
			continue
		}
		before = slots
	}
}
