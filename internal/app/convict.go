package app

import (
	"slices"
	"strings"

	"github.com/vmgate/vmgate/internal/config"
	"github.com/vmgate/vmgate/pkg/snort"
	"github.com/vmgate/vmgate/pkg/verdict"
)

// sentence is the verdict that an alert asks for; Undecided: none, it is to be
// ignored.
func sentence(cfg config.IDS, a snort.Alert) verdict.Verdict {
	for i := range cfg.Convict {
		if !meant(&cfg.Convict[i], a) {
			continue
		}
		switch cfg.Convict[i].Then {
		case "convict":
			return verdict.Drop
		case "ignore":
			return verdict.Undecided
		}
		return verdict.Check
	}
	return verdict.Check
}

// meant says whether a rule about alerts is about this one.
func meant(r *config.AlertRule, a snort.Alert) bool {
	return (r.Action == "" || r.Action == string(a.Action)) &&
		(len(r.SIDs) == 0 || slices.Contains(r.SIDs, int64(a.SID))) &&
		(r.Class == "" || strings.EqualFold(r.Class, a.Class)) &&
		// Priority 0 is an engine's word for none.
		(r.Priority == 0 || a.Priority != 0 && int64(a.Priority) <= r.Priority)
}

// spared says whether evidence of machines is not to turn against a VM (a nil
// process and an invalid address: as a whole), or a process of it.
func (s *state) spared(n *node, a verdict.Endpoint, p *verdict.Process) bool {
	return slices.ContainsFunc(s.cfg.IDS.Never, func(r config.Spared) bool {
		return (r.VM == "" || r.VM == n.name) &&
			(!r.Subnet.IsValid() || a.Addr.IsValid() && r.Subnet.Contains(a.Addr.Unmap())) &&
			(r.Process == "" || p != nil && r.Process == p.Path)
	})
}
