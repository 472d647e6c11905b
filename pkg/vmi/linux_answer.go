package vmi

import (
	"context"
	"fmt"
	"slices"
)

// owners answers a query once.
func (g *linuxGuest) owners(ctx context.Context, q Query) (Answer, error) {
	nets, err := g.k.namespacesOf(q)
	if err != nil {
		return Answer{}, err
	}
	all, err := g.k.portSockets(q, nets)
	if err != nil {
		return Answer{}, err
	}
	groups := choose(all, q, nets[0].addr)
	for level, group := range groups {
		answer, err := g.holdersOf(ctx, group)
		if err != nil {
			return Answer{}, err
		}
		if len(answer.Owners) == 0 {
			continue
		}
		if answer.State, err = g.k.stateOf(groups, level, q, nets); err != nil {
			return Answer{}, err
		}
		answer.Note = answer.State.note(true)
		if answer.State == StateElsewhere {
			err = g.addCandidates(ctx, &answer, q, nets)
		}
		return answer, err
	}
	return g.ownerless(ctx, q, nets, all, groups)
}

// ownerless answers a query where nobody holds a socket on the port.
func (g *linuxGuest) ownerless(ctx context.Context, q Query, nets []netns, all []sock, groups [matchLevels][]sock) (Answer, error) {
	again, err := g.k.portSockets(q, nets)
	if err != nil {
		return Answer{}, err
	}
	if !sameSockets(all, again) {
		return Answer{}, fmt.Errorf("%w: sockets come and go", ErrUnstable)
	}
	answer := Answer{State: StateNone, Verified: fmt.Sprintf("%d sockets on the port without a process, read twice", len(all))}
	for _, group := range groups {
		if len(group) > 0 {
			if answer.State, err = g.k.unheld(group[0]); err != nil {
				return Answer{}, err
			}
			break
		}
	}
	answer.Note = answer.State.note(false)
	return answer, g.addCandidates(ctx, &answer, q, nets)
}

func sameSockets(a, b []sock) bool {
	return slices.EqualFunc(a, b, func(a, b sock) bool { return a.addr == b.addr && a.local == b.local && a.remote == b.remote })
}

// describe turns holders into processes, each once, by pid. what names those
// files that are not the queried socket.
func (g *linuxGuest) describe(ctx context.Context, holders []holder, what map[uint64]string) ([]Process, error) {
	at := make(map[uint64]int) // of leaders, in out
	var out []Process
	for _, h := range holders {
		if i, known := at[h.leader]; known {
			out[i].Via += ", " + h.via(what)
			continue
		}
		t, err := g.k.task(h.leader)
		if err != nil || t.id() != h.id {
			return nil, fmt.Errorf("%w: owner %d has just ended", ErrUnstable, h.id.pid)
		}
		views, why, err := g.k.hidden(ctx, t, g.samples)
		if err != nil {
			return nil, err
		}
		p := g.process(t, nil)
		p.Views, p.Hidden, p.HiddenWhy, p.Via = views, why != "", why, h.via(what)
		at[h.leader] = len(out)
		out = append(out, p)
	}
	slices.SortFunc(out, func(a, b Process) int { return int(a.PID) - int(b.PID) })
	return out, nil
}

// via says what the process holds.
func (h holder) via(what map[uint64]string) string {
	via := fmt.Sprintf("descriptor %d", h.fd)
	if kind := what[h.file]; kind != "" {
		via = kind + ", " + via
	}
	return via
}
