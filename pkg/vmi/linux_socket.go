package vmi

import (
	"encoding/binary"
	"fmt"
	"net/netip"
)

// Socket states (include/net/tcp_states.h) that matter here.
const (
	stateEstablished = 1
	stateSynRecv     = 3
	stateTimeWait    = 6
	stateClose       = 7
	stateCloseWait   = 8
	stateListen      = 10
	stateNewSynRecv  = 12
)

var socketStates = [...]string{"", "established", "syn-sent", "syn-recv", "fin-wait-1", "fin-wait-2", "time-wait",
	"close", "close-wait", "last-ack", "listen", "closing", "new-syn-recv"}

const (
	protoICMP   = 1
	protoTCP    = 6
	protoUDP    = 17
	protoICMPv6 = 58

	familyIPv4   = 2
	familyIPv6   = 10
	familyPacket = 17
	familyXDP    = 44
)

// sock is one socket of the guest's network stack, as it was in one read.
type sock struct {
	addr          uint64
	net           uint64 // network namespace
	family        uint16
	state         uint8
	proto         uint8
	v6only        bool
	local, remote netip.AddrPort
	socket        uint64 // struct socket, 0 if a process never had it or has closed it
}

// familyName is the socket's family as Socket.Family has it.
func (s sock) familyName() string {
	return map[uint16]string{familyIPv4: "ipv4", familyIPv6: "ipv6", familyPacket: "packet", familyXDP: "xdp"}[s.family]
}

// String names a socket for people.
func (s sock) String() string {
	if s.family == familyPacket || s.family == familyXDP {
		return s.familyName() + " socket"
	}
	return fmt.Sprintf("socket %s of protocol %d", s.local, s.proto)
}

// mini says whether this is one of the small stand-ins that the kernel keeps
// for connections without a process; all but the addresses is meaningless then.
func (s sock) mini() bool { return s.state == stateTimeWait || s.state == stateNewSynRecv }

// sock reads a socket. proto is that of the table it was found in: the
// kernel's own field differs for MPTCP.
func (k *linuxKernel) sock(addr uint64, proto uint8) (sock, error) {
	r, err := k.scratch.record(k, addr, k.sockSpan, k.sockAt...)
	if err != nil {
		return sock{}, err
	}
	defer k.scratch.put(r)
	return k.sockFrom(r, proto), nil
}

func (k *linuxKernel) sockFrom(r record, proto uint8) sock {
	s := sock{
		addr: r.addr, net: r.uint(k.SockNet), family: uint16(r.uint(k.SockFamily)), state: uint8(r.uint(k.SockState)),
		proto: proto, v6only: r.uint(k.SockV6Only) != 0,
	}
	localPort := uint16(r.uint(k.SockPort))
	var peerPort uint16
	if b := r.bytes(k.SockPeerPort, 2); b != nil {
		peerPort = binary.BigEndian.Uint16(b)
	}
	local, peer := address(r.bytes(k.SockLocal4, 4)), address(r.bytes(k.SockPeer4, 4))
	if s.family == familyIPv6 {
		local, peer = address(r.bytes(k.SockLocal6, 16)), address(r.bytes(k.SockPeer6, 16))
	}
	s.local, s.remote = netip.AddrPortFrom(local, localPort), netip.AddrPortFrom(peer, peerPort)
	if !s.mini() {
		s.socket = r.uint(k.SockSocket)
	}
	return s
}

// address makes an address of bytes in network order; IPv4 in IPv6 becomes IPv4.
func address(b []byte) netip.Addr {
	a, _ := netip.AddrFromSlice(b)
	return a.Unmap()
}

// openFile is a socket as processes hold it.
type openFile struct {
	file  uint64 // struct file
	inode uint64 // the number in /proc/net/tcp and /proc/PID/fd
	count uint64 // the kernel's reference count of file
}

// openFile follows a socket to its struct file; ok is false if it has none, as
// sockets of the kernel and connections that wait to be accepted or have been
// closed.
func (k *linuxKernel) openFile(s sock) (f openFile, ok bool, err error) {
	sk, socket := s.addr, s.socket
	if s.mini() {
		return f, false, nil
	}
	if s.proto == protoTCP {
		if msk, err := k.mptcp(sk); err != nil {
			return f, false, err
		} else if msk != 0 {
			if socket, err = k.member(msk, k.SockSocket); err != nil {
				return f, false, err
			}
			sk = msk
		}
	}
	if !k.isDirect(socket) {
		return f, false, nil
	}
	r, err := k.scratch.record(k, socket, spanOf(k.SocketSock, k.SocketFile))
	if err != nil {
		return f, false, err
	}
	back := r.uint(k.SocketSock)
	f.file = r.uint(k.SocketFile)
	k.scratch.put(r)
	if back != sk || !k.isDirect(f.file) {
		return f, false, nil
	}
	counted, from := k.references()
	if r, err = k.scratch.record(k, f.file, spanOf(k.FileOps, k.FilePrivate, counted)); err != nil {
		return f, false, err
	}
	ops, owner := r.uint(k.FileOps), r.uint(k.FilePrivate)
	f.count = r.uint(counted) + from
	k.scratch.put(r)
	if ops != k.sym["socket_file_ops"] {
		return f, false, nil
	}
	// Else a socket could be made to look as if somebody else held it.
	if owner != socket {
		return f, false, fmt.Errorf("%w: the file of a socket is of another", ErrUnstable)
	}
	f.inode, err = k.u64(socket + uint64(k.SocketInode.off) + uint64(k.InodeNumber.off))
	return f, err == nil, err
}

// mptcp gives the MPTCP socket that a TCP socket is a subflow of, 0 if it is
// none. Go's listeners are such: the TCP socket in the tables belongs to the
// kernel then, and the process holds the MPTCP one.
func (k *linuxKernel) mptcp(sk uint64) (uint64, error) {
	ours, ok := k.sym["subflow_ulp_ops"]
	if !ok || k.SockULPOps.size == 0 || k.SubflowConn.size == 0 {
		return 0, nil
	}
	ops, err := k.member(sk, k.SockULPOps)
	if err != nil || ops != ours {
		return 0, err
	}
	context, err := k.member(sk, k.SockULPData)
	if err != nil || !k.isDirect(context) {
		return 0, err
	}
	conn, err := k.member(context, k.SubflowConn)
	if err != nil || !k.isDirect(conn) {
		return 0, err
	}
	return conn, nil
}

// references says where a file keeps how many descriptors, and calls under way,
// hold it, and what that is to be added to: from 6.13 on the kernel counts from
// zero (include/linux/file_ref.h).
func (k *linuxKernel) references() (at field, from uint64) {
	if k.FileRef.size != 0 {
		return k.FileRef, 1
	}
	return k.FileCount, 0
}

func stateName(state uint8) string {
	if int(state) < len(socketStates) {
		return socketStates[state]
	}
	return "unknown"
}
