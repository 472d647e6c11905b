package app

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/vmgate/vmgate/internal/api"
	"github.com/vmgate/vmgate/internal/config"
	"github.com/vmgate/vmgate/pkg/snort"
)

// IDS implements api.Backend.
func (b backend) IDS(context.Context) (api.IDS, error) {
	s := b.state.Load()
	answer := api.IDS{IDSStatus: b.idsStatus(s), RuleFiles: s.cfg.IDS.Rules}
	if s.cfg.IDS.Engine == "" {
		return answer, nil
	}
	b.ids.describe(&answer)
	counters, err := b.dp.Counters()
	for _, c := range counters {
		switch c.Reason.String() {
		case "check", "egress-check":
			answer.PacketsIn += c.Packets
		case "ids-return":
			answer.PacketsOut += c.Packets
		}
	}
	answer.NotBack = answer.PacketsIn - min(answer.PacketsIn, answer.PacketsOut)
	return answer, err
}

// describe fills in what the engines and their attendants tell.
func (i *ids) describe(answer *api.IDS) {
	i.mu.Lock()
	defer i.mu.Unlock()
	answer.Rules, answer.Refused = i.ruleCount, i.refused
	since := func(unixNano int64) time.Duration {
		if unixNano == 0 {
			return -1
		}
		return max(0, time.Since(time.Unix(0, unixNano)))
	}
	for _, n := range i.instances {
		st := n.engine.State()
		e := api.IDSEngine{
			State: st.Phase, PID: st.PID, Since: st.Since, Restarts: st.Restarts, LastReason: n.why,
			CanaryAge: max(since(n.seen[inToOut].Load()), since(n.seen[outToIn].Load())), AlertAge: since(n.beats.last.Load()),
			Lines: st.Lines, Malformed: st.Malformed, Lost: st.Lost, Repeated: st.Repeated,
		}
		if st.Phase == snort.PhaseUp && !n.up {
			e.State = snort.PhaseStarting
		}
		if n.seen[inToOut].Load() == 0 || n.seen[outToIn].Load() == 0 {
			e.CanaryAge = -1
		}
		if n.own != nil {
			answer.Version = n.own.Version()
		}
		answer.Engines = append(answer.Engines, e)
	}
}

// ReloadIDS implements api.Backend.
func (b backend) ReloadIDS(ctx context.Context) error {
	s := b.state.Load()
	if !runsEngine(s.cfg) {
		return fmt.Errorf("%w: the gateway runs no engine itself", api.ErrUnavailable)
	}
	err := b.ids.reload(ctx, s.cfg)
	if err != nil {
		return fmt.Errorf("%w: %w", api.ErrInvalid, err)
	}
	b.journal.note("ids", "rules reloaded")
	return nil
}

// TestIDS implements api.Backend.
func (b backend) TestIDS(ctx context.Context) error {
	s := b.state.Load()
	if !runsEngine(s.cfg) {
		return fmt.Errorf("%w: the gateway runs no engine itself", api.ErrUnavailable)
	}
	if err := checkEngine(ctx, s.cfg, b.log); err != nil {
		return fmt.Errorf("%w: %w", api.ErrInvalid, err)
	}
	return nil
}

// countRules counts the rules in files that an engine has taken as a whole.
func countRules(cfg *config.Config) (n int) {
	for _, path := range cfg.IDS.Rules {
		text, err := os.ReadFile(path)
		if err != nil {
			continue // gone since it was read
		}
		goesOn := false
		for line := range strings.Lines(string(text)) {
			line = strings.TrimSpace(line)
			if !goesOn && line != "" && line[0] != '#' {
				n++
			}
			goesOn = strings.HasSuffix(line, `\`)
		}
	}
	return n
}
