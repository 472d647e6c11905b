package vmi

import "errors"

// stateOf says what became of the socket that a query names, where the owners
// found hold the sockets of the group at level.
func (k *linuxKernel) stateOf(groups [matchLevels][]sock, level int, q Query, nets []netns) (SocketState, error) {
	for _, better := range groups[:min(level, matchBound)] {
		if len(better) > 0 { // this very connection, and nobody holds it
			return k.unheld(better[0])
		}
	}
	switch {
	case level < matchBound || q.Proto != protoTCP || !q.Remote.Addr().IsValid():
		return StateHeld, nil
	case level == matchElsewhere:
		return StateElsewhere, nil
	}
	for _, s := range groups[level] {
		if s.state != stateListen {
			return StateHeld, nil // bound, and about to connect
		}
	}
	for _, s := range groups[level] {
		if waiting, err := k.handshakes(s); err != nil || waiting == 0 {
			continue
		}
		if found, err := k.request(q, netSet(nets)); err != nil || found {
			return StateHalfOpen, err
		}
		break
	}
	return StateListening, nil
}

// unheld says why nobody holds a socket.
func (k *linuxKernel) unheld(s sock) (SocketState, error) {
	switch {
	case s.state == stateTimeWait:
		return StateTimeWait, nil
	case s.state == stateNewSynRecv, s.state == stateSynRecv:
		return StateHalfOpen, nil
	case s.socket == 0 && (s.state == stateEstablished || s.state == stateCloseWait):
		return StateUnaccepted, nil // what its process closes leaves these states
	case s.socket == 0:
		return StateClosed, nil
	}
	switch _, ok, err := k.openFile(s); {
	case err != nil:
		return "", err
	case ok:
		return StateOrphan, nil
	}
	return StateKernel, nil
}

// handshakes is how many connections to a listener are half open.
func (k *linuxKernel) handshakes(listener sock) (uint32, error) {
	if k.AcceptQueue.size == 0 {
		return 0, nil
	}
	return k.u32(listener.addr + uint64(k.AcceptQueue.off))
}

// errFound ends a walk early.
var errFound = errors.New("found")

// request says whether the half-open connection that a query names is among
// the established ones, where the kernel keeps them.
func (k *linuxKernel) request(q Query, within map[uint64]bool) (bool, error) {
	err := k.established(func(addr uint64) error {
		s, err := k.sock(addr, protoTCP)
		if err == nil && s.state == stateNewSynRecv && within[s.net] && s.local.Port() == q.Local.Port() && sameEnd(s.remote, q.Remote) {
			return errFound
		}
		return err
	})
	if errors.Is(err, errFound) {
		return true, nil
	}
	return false, err
}

// established visits the table of connections by both ends, half-open and
// ended ones included.
func (k *linuxKernel) established(fn eachSock) error {
	if k.EstHash.size == 0 || k.EstMask.size == 0 || k.EstSlotSize.size == 0 {
		return nil
	}
	info := k.sym["tcp_hashinfo"]
	hash, err := k.member(info, k.EstHash)
	if err != nil {
		return err
	}
	mask, err := k.u32(info + uint64(k.EstMask.off))
	if err != nil {
		return err
	}
	if mask&(mask+1) != 0 || mask >= maxHashSize {
		return errors.New("the table of connections makes no sense")
	}
	size := uint64(k.EstSlotSize.size)
	return k.usedSlots(hash, mask+1, size, k.EstHead, func(slot uint32) error {
		return k.socketChain(hash+uint64(slot)*size+uint64(k.EstHead.off), k.SockNode, fn)
	})
}

// stateNotes say for people what states mean.
var stateNotes = map[SocketState]string{
	StateListening:  "there is no such connection yet",
	StateElsewhere:  "the port is held for connections to others: its addresses were translated in the guest, its sender has gone, or it is forged",
	StateHalfOpen:   "its handshake is under way",
	StateUnaccepted: "it was not accepted yet",
	StateTimeWait:   "it has ended; the kernel remembers its addresses only",
	StateClosed:     "its process has closed it, or has ended",
	StateKernel:     "the guest's kernel made it for itself",
	StateOrphan:     "it is open, and no process in any view holds it",
	StateNone:       "no socket has this port",
}

// note says for people what a state means; owned where there are owners.
func (s SocketState) note(owned bool) string {
	text := stateNotes[s]
	if owned && s != StateHeld && s != StateElsewhere {
		text += "; the owners listen on its port"
	}
	return text
}
