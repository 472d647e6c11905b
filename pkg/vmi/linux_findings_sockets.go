package vmi

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"
)

// tableGap is the pause between two looks at a socket that is missing from a
// table: much longer than a processor of a busy host stands still.
const tableGap = 20 * time.Millisecond

// listeningSlots is INET_LHTABLE_SIZE, of kernels up to 5.18.
const listeningSlots = 32

// tableFindings looks for sockets that processes hold, but that are missing from
// a table where such a socket must be. Sockets that somebody works on, and that
// may therefore be half-way, are left out: samples must agree.
func (g *linuxGuest) tableFindings(ctx context.Context) ([]Finding, error) {
	var out []Finding
	if !g.k.knowsListening() || g.k.EstHash.size == 0 {
		out = append(out, unchecked("the tables of connections", "this kernel does not say where they are"))
	}
	var hidden map[uint64]Finding // by struct sock
	for i := range g.samples {
		if i > 0 {
			if err := pause(ctx, tableGap); err != nil {
				return nil, err
			}
		}
		now, err := g.untabled(ctx)
		if err != nil {
			return nil, err
		}
		for addr, f := range now {
			if before, ok := hidden[addr]; i > 0 && (!ok || before.Subject != f.Subject) {
				delete(now, addr)
			}
		}
		if hidden = now; len(hidden) == 0 {
			return out, nil
		}
	}
	for _, f := range hidden {
		out = append(out, f)
	}
	slices.SortFunc(out, func(a, b Finding) int { return cmp.Compare(a.Subject, b.Subject) })
	return out, nil
}

// untabled are the held sockets that are missing from a table, once.
func (g *linuxGuest) untabled(ctx context.Context) (map[uint64]Finding, error) {
	var held []heldSock
	if err := g.k.heldSockets(ctx, func(h heldSock) { held = append(held, h) }); err != nil {
		return nil, err
	}
	ports, shown, err := g.k.tabledSockets()
	if err != nil {
		return nil, err
	}
	out := make(map[uint64]Finding)
	for _, h := range held {
		missing := g.k.missingTables(h, ports, shown)
		if len(missing) == 0 {
			continue
		}
		now, ok := g.k.heldSock(h.file)
		if !ok || now.sock != h.sock || g.k.busy(h.addr) {
			continue // it is changing
		}
		f := Finding{Kind: HiddenSocket, Severity: High, Subject: fmt.Sprintf("%s (%s)", h.sock, stateName(h.state))}
		f.Evidence = fmt.Sprintf("a process holds it, and it is missing from %s, in %d samples that agree", strings.Join(missing, " and "), g.samples)
		if holders, err := g.findHolders(ctx, map[uint64]uint64{h.file: 1}); err == nil && len(holders[h.file]) > 0 {
			f.PID = holders[h.file][0].id.pid
		}
		out[h.addr] = f
	}
	return out, nil
}

// tabledSockets reads all tables: of ports, and of what the guest's netstat
// shows of TCP.
func (k *linuxKernel) tabledSockets() (ports, shown map[uint64]bool, err error) {
	ports, shown = make(map[uint64]bool), make(map[uint64]bool)
	into := func(set map[uint64]bool) eachSock {
		return func(addr uint64) error {
			set[addr] = true
			return nil
		}
	}
	table, err := k.tcpTable()
	if err != nil {
		return nil, nil, err
	}
	err = k.usedSlots(table.hash, table.size, uint64(k.BindHeadSize.size), k.BindHead, func(slot uint32) error {
		return k.tcpSlot(table, slot, func(uint64, uint16) bool { return true }, into(ports))
	})
	if err != nil {
		return nil, nil, err
	}
	for _, walk := range []func() error{
		func() error { return k.allUDP(into(ports)) },
		func() error { return k.rawSockets("raw_v4_hashinfo", into(ports)) },
		func() error { return k.rawSockets("raw_v6_hashinfo", into(ports)) },
		func() error { return k.established(into(shown)) },
		func() error { return k.listening(into(shown)) },
	} {
		if err := walk(); err != nil {
			return nil, nil, err
		}
	}
	return ports, shown, nil
}

// missingTables names the tables that a socket is missing from.
func (k *linuxKernel) missingTables(h heldSock, ports, shown map[uint64]bool) []string {
	var out []string
	if h.mptcp || !h.raw && h.proto != protoTCP && h.proto != protoUDP || h.local.Port() == 0 {
		return nil // an MPTCP socket's subflows are in the tables; the others' tables are not read
	}
	if !ports[h.addr] {
		out = append(out, "the table of ports")
	}
	if h.proto != protoTCP || h.raw || h.state == stateClose || shown[h.addr] {
		return out
	}
	if h.state == stateListen && k.knowsListening() {
		out = append(out, "the table of listeners")
	} else if h.state != stateListen && k.EstHash.size != 0 {
		out = append(out, "the table of connections")
	}
	return out
}

// busy says whether somebody has the lock of a socket.
func (k *linuxKernel) busy(sk uint64) bool {
	if k.SockOwned.size == 0 || k.SockLock.size == 0 {
		return false
	}
	owned, err := k.u32(sk + uint64(k.SockOwned.off))
	if err != nil || owned != 0 {
		return true
	}
	lock, err := k.u32(sk + uint64(k.SockLock.off))
	return err != nil || lock != 0
}

func (k *linuxKernel) knowsListening() bool {
	return k.ListenSlotSize.size != 0 && (k.ListenHead.size != 0 || k.ListenSlots.size != 0) && k.ListenHash.size != 0
}

// listening visits the listeners that the guest's netstat shows. From 5.19 on
// one table has them all; before, its elements are linked by another member, and
// an older one is shown.
func (k *linuxKernel) listening(fn eachSock) error {
	if !k.knowsListening() {
		return nil
	}
	info, size := k.sym["tcp_hashinfo"], uint64(k.ListenSlotSize.size)
	if k.ListenSlots.size != 0 {
		for i := range uint64(listeningSlots) {
			if err := k.socketChain(info+uint64(k.ListenSlots.off)+i*size+uint64(k.ListenHeadOld.off), k.SockNode, fn); err != nil {
				return err
			}
		}
		return nil
	}
	hash, err := k.member(info, k.ListenHash)
	if err != nil {
		return err
	}
	mask, err := k.u32(info + uint64(k.ListenMask.off))
	if err != nil {
		return err
	}
	if mask&(mask+1) != 0 || mask >= maxHashSize {
		return fmt.Errorf("%w: table of listeners of mask %#x", ErrNotUnderstood, mask)
	}
	return k.usedSlots(hash, mask+1, size, k.ListenHead, func(slot uint32) error {
		return k.socketChain(hash+uint64(slot)*size+uint64(k.ListenHead.off), k.SockNode, fn)
	})
}
