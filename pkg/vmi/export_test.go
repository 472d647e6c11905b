package vmi

import (
	"context"
	"fmt"
	"maps"
	"slices"
)

// What tests of findings need to know, to break a copy of a guest's memory in
// the ways that rootkits do. Addresses are guest-physical.

// SymbolAt is where a kernel symbol is, and its kernel address.
func SymbolAt(g Guest, name string) (phys, va uint64, err error) {
	k := g.(*linuxGuest).k
	va, ok := k.sym[name]
	if !ok {
		return 0, 0, fmt.Errorf("no symbol %s", name)
	}
	return k.imagePhys(va), va, nil
}

// TracerAt is where ftrace's first handler is kept.
func TracerAt(g Guest) (uint64, error) {
	k := g.(*linuxGuest).k
	ops, err := k.u64(k.sym["ftrace_ops_list"])
	return ops + uint64(k.TraceFunc.off), err
}

// FileAt is where an entry of /proc/net keeps its table.
func FileAt(ctx context.Context, g Guest, name string) (uint64, error) {
	k := g.(*linuxGuest).during(ctx).k
	net, err := k.member(k.sym["init_net"], k.NetProc)
	if err != nil {
		return 0, err
	}
	entries, err := k.procEntries(net)
	return entries[name] + uint64(k.ProcSeq.off), err
}

// ModuleAt is where a module's list node is, that of its object in sysfs, and
// the pointer that leads to the tree of all.
func ModuleAt(g Guest, name string) (list, sysfs, tree uint64, err error) {
	k := g.(*linuxGuest).k
	modules, err := k.listedModules()
	if err != nil {
		return 0, 0, 0, err
	}
	for addr, m := range modules {
		if m.name == name {
			return addr + uint64(k.ModList.off), addr + uint64(k.ModMK.off+k.ModKObj.off+k.KObjEntry.off),
				k.sym["mod_tree"] + uint64(k.ModTreeRoot.off+k.LatchTree.off), nil
		}
	}
	return 0, 0, 0, fmt.Errorf("no module %s among %v", name, modules)
}

// PhysOf translates a kernel address.
func PhysOf(g Guest, va uint64) (uint64, error) {
	phys, _, err := g.(*linuxGuest).k.phys(va)
	return phys, err
}

// Pointer reads a pointer at a kernel address.
func Pointer(g Guest, va uint64) (uint64, error) { return g.(*linuxGuest).k.u64(va) }

// DescriptorsAt are the kernel addresses of the descriptors of a socket.
func DescriptorsAt(ctx context.Context, g Guest, q Query) (out []uint64, err error) {
	l := g.(*linuxGuest).during(ctx)
	nets, err := l.k.namespacesOf(q)
	if err != nil {
		return nil, err
	}
	all, err := l.k.portSockets(q, nets)
	if err != nil {
		return nil, err
	}
	for _, s := range all {
		f, ok, err := l.k.openFile(s)
		if err != nil || !ok {
			continue
		}
		found, err := l.findHolders(ctx, map[uint64]uint64{f.file: f.count})
		if err != nil {
			return nil, err
		}
		for _, h := range found[f.file] {
			array, _, err := l.k.fdTable(h.files)
			if err != nil {
				return nil, err
			}
			out = append(out, array+8*uint64(h.fd))
		}
	}
	return out, nil
}

// PagingLevels is how many levels the page tables have.
func PagingLevels(g Guest) int { return g.(*linuxGuest).k.tables.levels }

// TaskPlaces are the kernel addresses of what lists a process.
type TaskPlaces struct {
	Tasks, Sibling          uint64 // list nodes
	PID, TGID, Comm         uint64
	First, Number, IDRSlot  uint64 // of its struct pid: first task, number; and what leads there
	PageCache, OtherPIDLink uint64 // its slab's cache in the page record; the pid link of process 1
}

// TaskAt finds what lists a process.
func TaskAt(ctx context.Context, g Guest, pid uint32) (p TaskPlaces, err error) {
	k := g.(*linuxGuest).during(ctx).k
	at, err := k.pidStruct(pid)
	if err != nil {
		return p, err
	}
	t, ok := k.taskOfPID(at)
	if !ok {
		return p, ErrNoProcess
	}
	one, err := k.pidStruct(1)
	if err != nil {
		return p, err
	}
	first, err := k.firstTask(one)
	if err != nil {
		return p, err
	}
	p = TaskPlaces{
		Tasks: t.addr + uint64(k.TaskTasks.off), Sibling: t.addr + uint64(k.TaskSibling.off),
		PID: t.addr + uint64(k.TaskPID.off), TGID: t.addr + uint64(k.TaskTGID.off), Comm: t.addr + uint64(k.TaskComm.off),
		First: at + uint64(k.PIDTasks.off), Number: at + uint64(k.PIDNumbers.off+k.UPIDNr.off),
		OtherPIDLink: first + uint64(k.TaskPIDLinks.off),
	}
	entry, base, err := k.pidRoot()
	if err != nil {
		return p, err
	}
	for level, index := 0, uint64(pid)-base; ; level++ {
		node, inner := xaNode(entry)
		if !inner {
			break
		}
		shift, slots, err := k.node(node, level)
		if err != nil {
			return p, err
		}
		i := index >> shift & (xaSlots - 1)
		p.IDRSlot, entry = node+uint64(k.NodeSlots.off)+8*i, slots[i]
	}
	page, err := k.slabPage(t.addr)
	p.PageCache = page + uint64(k.SlabCache.off)
	return p, err
}

// SocketAt is where the nodes are by which a socket is in the tables of ports
// and of connections or listeners.
func SocketAt(ctx context.Context, g Guest, q Query) (ports, shown uint64, err error) {
	k := g.(*linuxGuest).during(ctx).k
	nets, err := k.namespacesOf(q)
	if err != nil {
		return 0, 0, err
	}
	all, err := k.portSockets(q, nets)
	if err != nil {
		return 0, 0, err
	}
	best := choose(all, q, nets[0].addr)
	for _, group := range best {
		if len(group) > 0 {
			at := group[0].addr
			if q.Proto != protoTCP {
				return at + uint64(k.SockNode.off), 0, nil
			}
			return at + uint64(k.SockBindNode.off), at + uint64(k.SockNode.off), nil
		}
	}
	return 0, 0, fmt.Errorf("no socket for %+v", q)
}

// WantedSymbols are the kernel symbols that are looked up.
func WantedSymbols() []string { return slices.Sorted(maps.Keys(symbolNames())) }
