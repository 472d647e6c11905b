package app

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"time"

	"github.com/vmgate/vmgate/internal/config"
	"github.com/vmgate/vmgate/internal/metrics"
	"github.com/vmgate/vmgate/internal/source"
	"github.com/vmgate/vmgate/pkg/verdict"
	"github.com/vmgate/vmgate/pkg/vmi"
)

// guest is the introspection of one VM, which its Keeper keeps open.
type guest struct {
	*source.Keeper
	vm      string
	memory  config.Memory
	samples int
	metrics *metrics.Metrics
}

func newGuest(vm string, memory config.Memory, samples int, m *metrics.Metrics, log *slog.Logger) *guest {
	log = log.With("vm", vm)
	open := func(ctx context.Context) (*source.Opened, error) {
		return source.Open(ctx, memory, vmi.Options{HiddenSamples: samples, Log: log})
	}
	return &guest{Keeper: source.NewKeeper(vm, open, log), vm: vm, memory: memory, samples: samples, metrics: m}
}

// owner looks up which process holds the local end of a flow. Every outcome is
// an answer: a failure is OwnerUnavailable, with the reason as its detail. Who
// had the socket not longer than age ago is told where nobody has it now.
func (g *guest) owner(ctx context.Context, proto uint8, local, remote netip.AddrPort, age time.Duration) verdict.Owner {
	begin := time.Now()
	answer, err := g.ask(ctx, vmi.Query{Proto: proto, Local: local, Remote: remote})
	result := verdict.Owner{Observed: begin}
	switch {
	case err != nil:
		result.State, result.Detail = verdict.OwnerUnavailable, err.Error()
	case len(answer.Owners) == 0:
		result.State, result.Detail = verdict.OwnerNone, answer.Note
		result.Observed = answer.ReadAt
		for _, p := range answer.Past {
			if ago := answer.ReadAt.Sub(p.Seen); ago <= age {
				result.Past = append(result.Past, describe(g.vm, p.Process))
				result.Detail += fmt.Sprintf("; %s[%d] had it %v ago", p.Name, p.PID, ago.Round(time.Millisecond))
			}
		}
	default:
		result.State, result.Detail = verdict.OwnerKnown, answer.Verified
		result.Observed = answer.ReadAt
		for _, p := range answer.Owners {
			result.Processes = append(result.Processes, describe(g.vm, p))
		}
	}
	result.Untraced = answer.Untraced
	for _, p := range answer.Candidates {
		result.Candidates = append(result.Candidates, describe(g.vm, p))
	}
	g.metrics.ObserveIntrospection(result.State.String(), time.Since(begin))
	return result
}

// ask looks the owner up in the guest as it is now. The context bounds it.
func (g *guest) ask(ctx context.Context, query vmi.Query) (vmi.Answer, error) {
	open, err := g.Current()
	if err != nil {
		return vmi.Answer{}, err
	}
	answer, err := open.Owners(ctx, query)
	if err != nil {
		g.Noticed(err)
		return vmi.Answer{}, fmt.Errorf("cannot look up the owner in %s: %w", g.vm, err)
	}
	return answer, nil
}

// describe turns introspection's process into the decision's.
func describe(vm string, p vmi.Process) verdict.Process {
	return verdict.Process{
		Instance:    verdict.Instance{VM: vm, PID: p.PID, Start: p.Start},
		Name:        p.Name,
		Path:        p.Path,
		UID:         p.UID,
		Fingerprint: p.BuildID,
		Hidden:      p.Hidden,
	}
}
