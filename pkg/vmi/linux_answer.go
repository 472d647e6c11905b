package vmi

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strconv"
)

// owners answers a query once.
func (g *linuxGuest) owners(ctx context.Context, q Query) (Answer, error) {
	nets, err := g.k.namespacesOf(q)
	if err != nil {
		return Answer{}, err
	}
	if answer, found, err := g.knownFlow(ctx, q, nets); err != nil || found {
		return answer, err
	}
	all, err := g.k.portSockets(q, nets)
	if err != nil {
		return Answer{}, err
	}
	groups := choose(all, q, nets[0].addr)
	if answer, found, err := g.heldBy(ctx, q, nets, groups); err != nil || found {
		return answer, err
	}
	return g.ownerless(ctx, q, nets, all, groups)
}

// heldBy answers a query by the sockets of the best group that somebody holds.
func (g *linuxGuest) heldBy(ctx context.Context, q Query, nets []netns, groups [matchLevels][]sock) (answer Answer, found bool, err error) {
	for level, group := range groups {
		answer, err := g.holdersOf(ctx, group)
		if err != nil {
			return answer, false, err
		}
		if len(answer.Owners) == 0 {
			continue
		}
		if answer.State, err = g.k.stateOf(groups, level, q, nets); err != nil {
			return answer, false, err
		}
		answer.Note = answer.State.note(true)
		if level == matchFlow && len(group) == 1 {
			g.rememberFlow(q, group[0].addr)
		}
		if level == matchElsewhere {
			// Ports are used again, for other remote ends: that is no owner, also
			// where this very socket is there still and nobody's.
			if answer.State == StateHeld {
				answer.State = StateElsewhere
			}
			answer.Note = answer.State.note(false)
			answer.Candidates, answer.Owners = answer.Owners, nil
			err = g.addCandidates(ctx, &answer, q, nets)
		}
		return answer, true, err
	}
	return answer, false, nil
}

// ownerless answers a query where nobody holds a socket on the port that the
// network stack's tables have.
func (g *linuxGuest) ownerless(ctx context.Context, q Query, nets []netns, all []sock, groups [matchLevels][]sock) (Answer, error) {
	again, err := g.k.portSockets(q, nets)
	if err != nil {
		return Answer{}, err
	}
	if !sameSockets(all, again) {
		return Answer{}, fmt.Errorf("%w: sockets come and go", ErrUnstable)
	}
	held, err := g.heldOnPort(ctx, q, nets)
	if err != nil {
		return Answer{}, err
	}
	if len(held) > 0 {
		answer, found, err := g.heldBy(ctx, q, nets, choose(held, q, nets[0].addr))
		if found && tabled(q.Proto) {
			answer.Note = "found by its descriptor: it is missing from the kernel's tables of sockets"
		}
		if err != nil || found {
			return answer, err
		}
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
	if answer.State == StateOrphan {
		if err := g.addFlight(ctx, &answer, all); err != nil || answer.State == StateInFlight {
			return answer, err
		}
	}
	return answer, g.addCandidates(ctx, &answer, q, nets)
}

// tabled says whether we can read the table of a protocol's sockets.
func tabled(proto uint8) bool { return proto != protoSCTP && proto != protoUDPLite }

func sameSockets(a, b []sock) bool {
	return slices.EqualFunc(a, b, func(a, b sock) bool { return a.addr == b.addr && a.local == b.local && a.remote == b.remote })
}

// describe turns holders into processes, each once, by pid. what names those
// files that are not the queried socket.
func (g *linuxGuest) describe(ctx context.Context, holders []holder, what map[uint64]string) ([]Process, error) {
	at := make(map[uint64]int) // of leaders, in out
	var out []Process
	for _, h := range inOrder(holders, what) {
		if i, known := at[h.leader]; known {
			out[i].Via += ", " + h.via(what)
			continue
		}
		t, err := g.k.task(h.leader)
		if err != nil || t.id() != h.id || !t.leads() {
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

// inOrder sorts holders by what they hold it by: they are found in any order.
func inOrder(holders []holder, what map[uint64]string) []holder {
	return slices.SortedFunc(slices.Values(holders), func(a, b holder) int {
		return cmp.Or(cmp.Compare(what[a.file], what[b.file]), cmp.Compare(a.ring, b.ring), cmp.Compare(a.fd, b.fd), cmp.Compare(a.task, b.task))
	})
}

// via says what the process holds.
func (h holder) via(what map[uint64]string) string {
	via := "descriptor " + strconv.Itoa(int(h.fd))
	if h.ring != 0 {
		via = fmt.Sprintf("file %d of its io_uring", h.fd)
	}
	if kind := what[h.file]; kind != "" {
		via = kind + ", " + via
	}
	return via
}
