package vmi

import (
	"encoding/binary"
	"fmt"
)

// Bounds on the socket tables.
const (
	maxChain    = 1 << 16 // sockets or buckets in one chain
	maxSockets  = 1 << 20
	maxNets     = 1 << 10
	maxHashSize = 1 << 22
	rawBuckets  = 256 // RAW_HTABLE_SIZE
	pingBuckets = 64  // PING_HTABLE_SIZE
)

// netns is one network namespace of the guest. The hash of a port depends on it.
type netns struct {
	addr uint64
	mix  uint32
}

// namespaces lists the guest's network namespaces, the initial one first.
func (k *linuxKernel) namespaces() ([]netns, error) {
	var out []netns
	err := k.list(k.sym["net_namespace_list"], maxNets, func(node uint64) error {
		n := netns{addr: node - uint64(k.NetList.off)}
		var err error
		n.mix, err = k.u32(n.addr + uint64(k.NetHashMix.off))
		if n.addr == k.sym["init_net"] {
			out = append([]netns{n}, out...)
			return err
		}
		out = append(out, n)
		return err
	})
	return out, err
}

// eachSock is what the walks of the tables call with each socket's address.
type eachSock func(addr uint64) error

// tcpTable is the kernel's table of bound TCP ports.
type tcpTable struct {
	hash uint64
	size uint32
}

func (k *linuxKernel) tcpTable() (tcpTable, error) {
	info := k.sym["tcp_hashinfo"]
	hash, err := k.member(info, k.HashBind)
	if err != nil {
		return tcpTable{}, err
	}
	size, err := k.u32(info + uint64(k.HashBindSize.off))
	if err != nil {
		return tcpTable{}, err
	}
	if hash == 0 || size == 0 || size&(size-1) != 0 || size > maxHashSize {
		return tcpTable{}, fmt.Errorf("%w: TCP table of %d entries", ErrNotUnderstood, size)
	}
	return tcpTable{hash, size}, nil
}

// tcpPort visits the sockets bound to a TCP port of a namespace: listeners,
// connected clients and accepted connections.
func (k *linuxKernel) tcpPort(n netns, port uint16, fn eachSock) error {
	t, err := k.tcpTable()
	if err != nil {
		return err
	}
	slot := (uint32(port) + n.mix) & (t.size - 1)
	return k.tcpSlot(t, slot, func(bucketNet uint64, bucketPort uint16) bool {
		return bucketNet == n.addr && bucketPort == port
	}, fn)
}

// tcpSlot visits the sockets of one slot of the table whose bucket matches.
func (k *linuxKernel) tcpSlot(t tcpTable, slot uint32, match func(net uint64, port uint16) bool, fn eachSock) error {
	first, err := k.member(t.hash+uint64(slot)*uint64(k.BindHeadSize.size), k.BindHead)
	if err != nil {
		return err
	}
	return k.hlist(first, maxChain, func(node uint64) (bool, error) {
		bucket := node - uint64(k.BucketNode.off)
		r, err := k.record(bucket, spanOf(k.BucketPort, k.BucketNet))
		if err != nil {
			return false, err
		}
		if !match(r.uint(k.BucketNet), uint16(r.uint(k.BucketPort))) {
			return true, nil
		}
		return true, k.bucketOwners(bucket, fn)
	})
}

// bucketOwners visits the sockets of a bucket. From 6.8 on they hang under its
// second-level buckets, one for each local address.
func (k *linuxKernel) bucketOwners(bucket uint64, fn eachSock) error {
	if k.BucketSecond.size == 0 || k.Bucket2Node.size == 0 {
		return k.socketChain(bucket+uint64(k.BucketOwners.off), k.SockBindNode, fn)
	}
	first, err := k.member(bucket, k.BucketSecond)
	if err != nil {
		return err
	}
	return k.hlist(first, maxChain, func(node uint64) (bool, error) {
		second := node - uint64(k.Bucket2Node.off)
		return true, k.socketChain(second+uint64(k.Bucket2Owners.off), k.SockBindNode, fn)
	})
}

// socketChain visits the sockets of the chain at head, linked by their member node.
func (k *linuxKernel) socketChain(head uint64, node field, fn eachSock) error {
	first, err := k.u64(head)
	if err != nil {
		return err
	}
	return k.hlist(first, maxChain, func(at uint64) (bool, error) {
		return true, fn(at - uint64(node.off))
	})
}

// udpTable is one namespace's table of UDP sockets; most share one.
type udpTable struct {
	hash uint64
	mask uint32
}

func (k *linuxKernel) udpTable(n netns) (udpTable, error) {
	at := k.sym["udp_table"]
	if k.NetUDPTable.size != 0 { // from 6.2 on
		var err error
		if at, err = k.member(n.addr, k.NetUDPTable); err != nil {
			return udpTable{}, err
		}
	}
	hash, err := k.member(at, k.UDPHash)
	if err != nil {
		return udpTable{}, err
	}
	mask, err := k.u32(at + uint64(k.UDPMask.off))
	if err != nil {
		return udpTable{}, err
	}
	if hash == 0 || mask&(mask+1) != 0 || mask >= maxHashSize {
		return udpTable{}, fmt.Errorf("%w: UDP table of mask %#x", ErrNotUnderstood, mask)
	}
	return udpTable{hash, mask}, nil
}

// udpPort visits the sockets in the slot of a UDP port: those of other ports
// and namespaces may be among them.
func (k *linuxKernel) udpPort(n netns, port uint16, fn eachSock) error {
	t, err := k.udpTable(n)
	if err != nil {
		return err
	}
	return k.udpSlot(t, (uint32(port)+n.mix)&t.mask, fn)
}

// udpSlot visits the sockets of one slot, of every port and namespace that share it.
func (k *linuxKernel) udpSlot(t udpTable, slot uint32, fn eachSock) error {
	head := t.hash + uint64(slot)*uint64(k.UDPSlotSize.size) + uint64(k.UDPSlotHead.off)
	return k.socketChain(head, k.SockNode, fn)
}

// rawSockets visits all raw sockets of IPv4 or IPv6, and pingSockets all
// unprivileged ICMP sockets of both: there are few.
func (k *linuxKernel) rawSockets(table string, fn eachSock) error {
	at, ok := k.sym[table]
	if !ok || k.RawHash.size == 0 {
		return nil
	}
	return k.chains(at+uint64(k.RawHash.off), rawBuckets, fn)
}

func (k *linuxKernel) pingSockets(fn eachSock) error {
	at, ok := k.sym["ping_table"]
	if !ok || k.PingHash.size == 0 {
		return nil
	}
	return k.chains(at+uint64(k.PingHash.off), pingBuckets, fn)
}

// chains visits the sockets of a table that is an array of n chain heads.
func (k *linuxKernel) chains(at uint64, n int, fn eachSock) error {
	raw := make([]byte, 8*n)
	if err := k.read(raw, at); err != nil {
		return err
	}
	for i := range n {
		first := binary.LittleEndian.Uint64(raw[8*i:])
		if err := k.hlist(first, maxChain, func(node uint64) (bool, error) {
			return true, fn(node - uint64(k.SockNode.off))
		}); err != nil {
			return err
		}
	}
	return nil
}
