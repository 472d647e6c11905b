package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/vmgate/vmgate/internal/metrics"
	"github.com/vmgate/vmgate/pkg/verdict"
	"github.com/vmgate/vmgate/pkg/vmi"
)

// sweepShare: sweeps of a VM whose memory is slow to read (by a monitor, over a
// network) take one part in so many of the time, whatever decision.scan says.
const sweepShare = 10

// sweeper looks over each VM from time to time, and at once when asked to: it
// finds hidden processes that open no connection, and the ports of processes
// that have a verdict on them, so that their next packet is dropped in XDP. And
// introspection learns from it who has which port, for when they have gone.
type sweeper struct {
	metrics *metrics.Metrics
	book    *verdict.Book
	effects *effects
	log     *slog.Logger
	now     func() *state

	mu       sync.Mutex
	wanted   map[string]chan struct{} // by VM
	searched map[string]time.Time     // for findings, by VM
}

func newSweeper(book *verdict.Book, now func() *state, log *slog.Logger) *sweeper {
	return &sweeper{book: book, log: log, now: now, wanted: map[string]chan struct{}{}, searched: map[string]time.Time{}}
}

// ask has a VM swept soon. It never blocks.
func (s *sweeper) ask(vm string) {
	select {
	case s.bell(vm) <- struct{}{}:
	default:
	}
}

func (s *sweeper) bell(vm string) chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.wanted[vm] == nil {
		s.wanted[vm] = make(chan struct{}, 1)
	}
	return s.wanted[vm]
}

// run sweeps one VM until ctx is done.
func (s *sweeper) run(ctx context.Context, g *guest) {
	bell := s.bell(g.vm)
	var took time.Duration
	for {
		select {
		case <-ctx.Done():
			return
		case <-bell:
		case <-time.After(max(s.now().cfg.Decision.Scan, sweepShare*took)):
		}
		begin := time.Now()
		if err := s.sweep(ctx, g); err != nil && ctx.Err() == nil {
			s.log.Debug("sweep ended early", "vm", g.vm, "error", err)
		}
		took = time.Since(begin)
	}
}

func (s *sweeper) sweep(ctx context.Context, g *guest) error {
	if state, _, _ := g.Status(); state != "ready" {
		return nil // its keeper reports why
	}
	open, err := g.Current()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	begin := time.Now()
	defer func() { s.metrics.ObserveSweep(g.vm, time.Since(begin)) }()
	swept := open.Sweep(ctx) // the hidden are looked for also where that failed
	processes, err := open.Processes(ctx)
	if err = errors.Join(swept, err); err != nil {
		g.Noticed(err)
	}
	if processes == nil {
		return fmt.Errorf("cannot sweep %s: %w", g.vm, err)
	}
	if err := s.judgeFindings(ctx, g.vm, open); err != nil {
		g.Noticed(err)
		s.log.Error("cannot look for what is hidden or hooked, as vm-rules ask", "vm", g.vm, "error", err)
	}
	convicted := map[uint32]verdict.Process{} // by pid
	for _, found := range processes {
		p := describe(g.vm, found)
		if p.Hidden {
			s.report(p, found.HiddenWhy)
		}
		if standing, _ := s.book.JudgeProcess(p); standing.Verdict > verdict.Forward {
			convicted[p.PID] = p
		}
	}
	if len(convicted) == 0 {
		return swept
	}
	return errors.Join(swept, s.notePorts(ctx, g, convicted))
}

// findingsEvery is how often a VM is searched for what is hidden or hooked, where a
// rule about VMs asks for it: it takes much longer than a sweep.
const findingsEvery = 30 * time.Second

func (s *sweeper) judgeFindings(ctx context.Context, vm string, open vmi.Guest) error {
	if !s.effects.tally.Wants(verdict.SignFinding, vm) {
		return nil
	}
	s.mu.Lock()
	due := time.Since(s.searched[vm]) >= findingsEvery
	if due {
		s.searched[vm] = time.Now()
	}
	s.mu.Unlock()
	if !due {
		return nil
	}
	findings, err := open.Findings(ctx)
	if err != nil {
		return err
	}
	return s.effects.found(vm, findings)
}

// report puts a hidden process before the book, once.
func (s *sweeper) report(p verdict.Process, why string) {
	err := s.effects.observe(verdict.Evidence{
		Kind: verdict.EvidenceHidden, Observed: time.Now(), VM: p.VM, Process: &p,
		Verdict: verdict.Check, Cause: verdict.CauseHidden, Detail: why,
	})
	if err != nil {
		s.log.Error("cannot enforce the verdict on a hidden process", "vm", p.VM, "pid", p.PID, "error", err)
	}
}

// notePorts writes the ports of processes that are not simply forwarded.
func (s *sweeper) notePorts(ctx context.Context, g *guest, convicted map[uint32]verdict.Process) error {
	open, err := g.Current()
	if err != nil {
		return err
	}
	sockets, err := open.Sockets(ctx)
	if err != nil {
		g.Noticed(err)
		return fmt.Errorf("cannot list the sockets of %s: %w", g.vm, err)
	}
	state, observed := s.now(), time.Now()
	n := state.inv.byName[g.vm]
	if n == nil {
		return nil // the VM has just left the inventory
	}
	age := state.cfg.Decision.AttributionAge
	for _, socket := range sockets {
		if !verdict.HasPorts(socket.Proto) || socket.Local.Port() == 0 {
			continue
		}
		for _, pid := range socket.PIDs {
			p, ok := convicted[pid]
			if !ok {
				continue
			}
			standing, _ := s.book.JudgeProcess(p)
			id, err := s.effects.owners.set(p, standing)
			if err != nil {
				return err
			}
			if err := s.effects.notePort(n.id, socket.Proto, socket.Local.Port(), id, observed, age); err != nil {
				return err
			}
		}
	}
	return nil
}
