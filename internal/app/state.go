package app

import (
	"context"

	"github.com/vmgate/vmgate/internal/config"
	"github.com/vmgate/vmgate/pkg/verdict"
)

// state is the configuration in force with all that is derived from it. It is
// replaced as a whole by a reload and never changes otherwise.
type state struct {
	cfg    *config.Config
	inv    *inventory
	policy *verdict.Policy
	rules  map[string]uint32             // rule ids by name
	guests map[string]*guest             // by VM id, of the VMs whose memory is declared
	clear  map[uint32]verdict.ClearAfter // by rule id, of the rules that clear flows
}

// monitor says whether everything is decided and recorded, but forwarded.
func (s *state) monitor() bool { return s.cfg.Enforcement == "monitor" }

// ownerOf asks introspection which process holds one end of a flow.
func (s *state) ownerOf(ctx context.Context, end, peer verdict.Endpoint, proto uint8) verdict.Owner {
	g := s.guests[end.VM]
	if g == nil {
		return verdict.Owner{State: verdict.OwnerUndeclared}
	}
	return g.owner(ctx, proto, addrPort(end), addrPort(peer), s.cfg.Decision.AttributionAge)
}
