package app

import (
	"errors"
	"slices"

	"github.com/vmgate/vmgate/pkg/loader"
)

// moved lists the VMs and routers that a new inventory has elsewhere than the old
// one: in another segment, or with other MAC addresses.
func moved(old, next *inventory) map[uint32]bool {
	ids := map[uint32]bool{}
	for id, was := range old.byID {
		is := next.byID[id]
		if is == nil || is.segment.number != was.segment.number || is.segment.group != was.segment.group || !slices.Equal(is.macs, was.macs) {
			ids[id] = true
		}
	}
	return ids
}

// endFlowsOfMoved ends the flows of those that are elsewhere now. A flow's entry
// names ports and MAC addresses, and whoever still has them at the old place could
// go on with it; at the new place it is decided anew.
func (a *App) endFlowsOfMoved(old *state, next *inventory) error {
	if old == nil {
		return nil
	}
	ids := moved(old.inv, next)
	if len(ids) == 0 {
		return nil
	}
	var errs []error
	flows := a.dp.Flows()
	for key, flow := range flows.All() {
		if concerns(flow, ids) {
			errs = append(errs, a.dp.DeleteFlow(key))
		}
	}
	return errors.Join(append(errs, flows.Err())...)
}

func concerns(flow loader.Flow, ids map[uint32]bool) bool {
	return ids[flow.Dir[0].VM] || ids[flow.Dir[1].VM]
}
