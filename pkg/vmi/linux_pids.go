package vmi

import (
	"context"
	"encoding/binary"
	"fmt"
)

// The pid view is what the guest's own ps shows: /proc walks the IDR of
// struct pid and opens each by its first task (fs/proc/base.c).

const (
	maxPID       = 1 << 22 // PID_MAX_LIMIT
	xaSlots      = 64
	xaShift      = 6
	maxXANodes   = 1 << 17
	maxXALevels  = 5
	pidTaskFirst = 0 // PIDTYPE_PID
)

// pidRoot reads the head and base of the initial namespace's IDR, which holds
// all processes, those of inner namespaces too.
func (k *linuxKernel) pidRoot() (head, base uint64, err error) {
	idr := k.sym["init_pid_ns"] + uint64(k.PIDNSIDR.off)
	r, err := k.scratch.record(k, idr, spanOf(k.IDRHead, k.IDRBase))
	if err != nil {
		return 0, 0, err
	}
	defer k.scratch.put(r)
	return r.uint(k.IDRHead), r.uint(k.IDRBase), nil
}

// xaNode decodes an entry of an xarray: inner nodes are marked by the bits 10
// (include/linux/xarray.h).
func xaNode(entry uint64) (node uint64, ok bool) { return entry &^ 3, entry&3 == 2 && entry > pageSize }

// node reads an inner node of an xarray.
func (k *linuxKernel) node(addr uint64, level int) (shift uint8, slots [xaSlots]uint64, err error) {
	if shift, err = k.nodeShift(addr, level); err != nil {
		return 0, slots, err
	}
	slots, err = k.xaSlots(addr)
	return shift, slots, err
}

// nodeShift reads how many bits of an index are left below an inner node.
func (k *linuxKernel) nodeShift(addr uint64, level int) (uint8, error) {
	shift, err := k.u8(addr + uint64(k.NodeShift.off))
	if err == nil && int(shift) > xaShift*(maxXALevels-level) {
		err = fmt.Errorf("%w: node of shift %d", ErrUnstable, shift)
	}
	return shift, err
}

// xaSlots reads the entries of an inner node of an xarray.
func (k *linuxKernel) xaSlots(addr uint64) (slots [xaSlots]uint64, err error) {
	var raw [8 * xaSlots]byte
	if err := k.read(raw[:], addr+uint64(k.NodeSlots.off)); err != nil {
		return slots, err
	}
	for i := range slots {
		slots[i] = binary.LittleEndian.Uint64(raw[8*i:])
	}
	return slots, nil
}

// pidStruct finds the struct pid of a number; 0 if there is none.
func (k *linuxKernel) pidStruct(pid uint32) (uint64, error) {
	entry, base, err := k.pidRoot()
	if err != nil {
		return 0, err
	}
	index := uint64(pid) - base
	for level := 0; ; level++ {
		addr, inner := xaNode(entry)
		if !inner {
			if level == 0 && index != 0 {
				return 0, nil
			}
			return entry &^ 3, nil
		}
		shift, err := k.nodeShift(addr, level)
		if err != nil {
			return 0, fmt.Errorf("%w: pids: %w", ErrUnstable, err)
		}
		if level == 0 && index>>(shift+xaShift) != 0 || level >= maxXALevels {
			return 0, nil
		}
		// Of the node one slot is of use, and the whole is half a KiB.
		entry, err = k.u64(addr + uint64(k.NodeSlots.off) + 8*(index>>shift&(xaSlots-1)))
		if err != nil {
			return 0, fmt.Errorf("%w: pids: %w", ErrUnstable, err)
		}
	}
}

// firstTask is the task that a struct pid leads /proc to; 0 if none.
func (k *linuxKernel) firstTask(pid uint64) (uint64, error) {
	node, err := k.u64(pid + uint64(k.PIDTasks.off) + 8*pidTaskFirst)
	if err != nil || node == 0 {
		return 0, err
	}
	return node - uint64(k.TaskPIDLinks.off) - 16*pidTaskFirst, nil
}

// listed says whether the guest's own ps shows the task.
func (k *linuxKernel) listed(t task) (bool, error) {
	pid, err := k.pidStruct(t.pid)
	if err != nil || pid == 0 || pid != t.threadPID {
		return false, err
	}
	first, err := k.firstTask(pid)
	return first == t.addr, err
}

// pidsView lists what ps would show: the leaders that the pids lead to.
func (k *linuxKernel) pidsView(ctx context.Context) ([]task, error) {
	head, _, err := k.pidRoot()
	if err != nil {
		return nil, err
	}
	out := k.known.room()
	nodes := 0
	var visit func(entry uint64, level int) error
	visit = func(entry uint64, level int) error {
		addr, inner := xaNode(entry)
		if !inner {
			t, ok := k.taskOfPID(entry &^ 3)
			if ok {
				out = append(out, t)
			}
			return nil
		}
		if nodes++; nodes > maxXANodes || len(out) > maxPID {
			return fmt.Errorf("%w: too many pids", ErrUnstable)
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		_, slots, err := k.node(addr, level)
		if err != nil {
			return fmt.Errorf("%w: pids: %w", ErrUnstable, err)
		}
		for _, s := range slots {
			if s == 0 {
				continue
			}
			if err := visit(s, level+1); err != nil {
				return err
			}
		}
		return nil
	}
	if head == 0 {
		return nil, nil
	}
	return out, visit(head, 0)
}

// taskOfPID follows a struct pid to the process it leads; ok is false for
// threads, groups without a leader and what has just gone.
func (k *linuxKernel) taskOfPID(pid uint64) (task, bool) {
	if !k.isDirect(pid) {
		return task{}, false
	}
	addr, err := k.firstTask(pid)
	if err != nil || addr == 0 {
		return task{}, false
	}
	t, err := k.task(addr)
	return t, err == nil && t.leads() && t.threadPID == pid
}
