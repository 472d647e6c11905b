package vmi

import (
	"context"
	"fmt"
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
		found, err := l.k.findHolders(ctx, map[uint64]uint64{f.file: f.count})
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
