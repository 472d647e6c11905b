package vmi

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
)

// allSockets reads every socket of TCP and UDP tables, the raw and ping ones, and
// those by which processes write headers themselves.
func (k *linuxKernel) allSockets(ctx context.Context) ([]sock, error) {
	var out []sock
	seen := make(map[uint64]bool)
	add := func(proto uint8) eachSock {
		return func(addr uint64) error {
			if seen[addr] {
				return nil
			}
			seen[addr] = true
			if len(out) >= maxSockets {
				return fmt.Errorf("%w: more than %d sockets", ErrUnstable, maxSockets)
			}
			if len(out)&0xff == 0 && ctx.Err() != nil {
				return ctx.Err()
			}
			s, err := k.sock(addr, proto)
			out = append(out, s)
			return err
		}
	}
	table, err := k.tcpTable()
	if err != nil {
		return nil, err
	}
	err = k.usedSlots(table.hash, table.size, uint64(k.BindHeadSize.size), k.BindHead, func(slot uint32) error {
		return k.tcpSlot(table, slot, func(uint64, uint16) bool { return true }, add(protoTCP))
	})
	if err != nil {
		return nil, err
	}
	// Half-open connections are in no table of ports.
	if err := k.established(add(protoTCP)); err != nil {
		return nil, err
	}
	if err := k.allUDP(add(protoUDP)); err != nil {
		return nil, err
	}
	err = errors.Join(k.rawSockets("raw_v4_hashinfo", k.rawOnly(&out, add)), k.rawSockets("raw_v6_hashinfo", k.rawOnly(&out, add)),
		k.pingSockets(add(protoICMP)))
	if err != nil {
		return nil, err
	}
	nets, err := k.namespaces()
	if err != nil {
		return nil, err
	}
	return out, k.linkSockets(nets, add(0))
}

// rawOnly gives a raw socket the protocol it is for.
func (k *linuxKernel) rawOnly(out *[]sock, add func(uint8) eachSock) eachSock {
	return func(addr uint64) error {
		n := len(*out)
		err := add(0)(addr)
		if len(*out) > n {
			s := &(*out)[n]
			s.proto = uint8(s.local.Port())
			s.local, s.remote = netip.AddrPortFrom(s.local.Addr(), 0), netip.AddrPortFrom(s.remote.Addr(), 0)
		}
		return err
	}
}

// allUDP visits the sockets of every UDP table.
func (k *linuxKernel) allUDP(fn eachSock) error {
	nets, err := k.namespaces()
	if err != nil {
		return err
	}
	done := make(map[uint64]bool)
	for _, n := range nets {
		table, err := k.udpTable(n)
		if err != nil {
			return err
		}
		if done[table.hash] {
			continue
		}
		done[table.hash] = true
		err = k.usedSlots(table.hash, table.mask+1, uint64(k.UDPSlotSize.size), k.UDPSlotHead, func(slot uint32) error {
			return k.udpSlot(table, slot, fn)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// usedSlots calls fn with the slots of a table that have a chain; the table is
// read in pieces, most slots being empty.
func (k *linuxKernel) usedSlots(at uint64, n uint32, size uint64, head field, fn func(slot uint32) error) error {
	if size < 8 || size > 4096 || uint64(head.off)+8 > size {
		return fmt.Errorf("%w: table slots of %d bytes", ErrNotUnderstood, size)
	}
	const piece = 4096
	buf := make([]byte, piece*size)
	for first := uint32(0); first < n; first += piece {
		count := min(n-first, piece)
		if err := k.read(buf[:uint64(count)*size], at+uint64(first)*size); err != nil {
			return err
		}
		for i := range count {
			if chain := binary.LittleEndian.Uint64(buf[uint64(i)*size+uint64(head.off):]); chain == 0 || chain&1 == 1 {
				continue
			}
			if err := fn(first + i); err != nil {
				return err
			}
		}
	}
	return nil
}
