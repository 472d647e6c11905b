package vmi

import (
	"cmp"
	"context"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
)

// Where modules live (Documentation/arch/x86/x86_64/mm.rst).
const (
	modulesStart = imageLimit
	modulesEnd   = 0xffffffffff000000
)

// Names of the views of modules.
const (
	viewModList = "list"   // what lsmod and /proc/modules show
	viewModTree = "tree"   // what the kernel finds the owner of an address by
	viewSysfs   = "sysfs"  // what /sys/module shows
	viewMemory  = "memory" // what lies in the mapped pages of the modules' area
)

const (
	maxModules     = 1 << 12
	maxModuleNodes = maxModules * 8 // each module has several areas
	moduleNameLen  = 56
	moduleLive     = 0 // MODULE_STATE_LIVE
)

// module is one kernel module.
type module struct {
	addr       uint64 // of its struct
	name       string
	state      uint32
	base, size uint64 // of its text; 0 where unknown
}

func (k *linuxKernel) module(addr uint64) (module, error) {
	if addr&7 != 0 || addr < modulesStart || addr >= modulesEnd {
		return module{}, fmt.Errorf("%w: module at %#x", errBadPointer, addr)
	}
	m := module{addr: addr}
	var name [moduleNameLen]byte
	err := k.read(name[:], addr+uint64(k.ModName.off))
	if err != nil {
		return m, err
	}
	m.name = printable(goString(name[:]))
	if m.state, err = k.u32(addr + uint64(k.ModState.off)); err != nil {
		return m, err
	}
	base, size := addr+uint64(k.ModBase.off), addr+uint64(k.ModSize.off)
	if k.ModBase.size == 0 { // from 6.4 on there are several areas, the text first
		base, size = addr+uint64(k.ModMem.off+k.MemBase.off), addr+uint64(k.ModMem.off+k.MemSize.off)
	}
	if m.base, err = k.u64(base); err != nil {
		return m, err
	}
	bytes, err := k.u32(size)
	m.size = uint64(bytes)
	return m, err
}

// listedModules is what lsmod shows, by address.
func (k *linuxKernel) listedModules() (map[uint64]module, error) {
	out := make(map[uint64]module)
	err := k.list(k.sym["modules"], maxModules, func(node uint64) error {
		m, err := k.module(node - uint64(k.ModList.off))
		out[m.addr] = m
		return err
	})
	return out, err
}

// treeModules walks the first of the two trees of module addresses.
func (k *linuxKernel) treeModules() (map[uint64]module, error) {
	root, err := k.u64(k.sym["mod_tree"] + uint64(k.ModTreeRoot.off+k.LatchTree.off))
	if err != nil {
		return nil, err
	}
	out := make(map[uint64]module)
	err = k.rbTree(root, maxModuleNodes, func(node uint64) error {
		addr, err := k.u64(node - uint64(k.ModNodeNode.off) + uint64(k.ModNodeMod.off))
		if err != nil {
			return err
		}
		out[addr], err = k.module(addr)
		return err
	})
	return out, err
}

// sysfsModules is what /sys/module shows, less what is built in.
func (k *linuxKernel) sysfsModules() (map[uint64]module, error) {
	kset, err := k.u64(k.sym["module_kset"])
	if err != nil {
		return nil, err
	}
	out := make(map[uint64]module)
	err = k.list(kset+uint64(k.KSetList.off), maxModules, func(node uint64) error {
		addr, err := k.u64(node - uint64(k.KObjEntry.off) - uint64(k.ModKObj.off) + uint64(k.ModKObjMod.off))
		if err != nil || addr == 0 {
			return err
		}
		out[addr], err = k.module(addr)
		return err
	})
	return out, err
}

// memoryModules looks through the mapped pages of the modules' area for what
// looks like a module: its object in sysfs points back to it. A module is found
// here as long as its code can run, whatever list it has left.
func (k *linuxKernel) memoryModules(ctx context.Context) (map[uint64]module, error) {
	back := uint64(k.ModMK.off + k.ModKObjMod.off) // of the pointer in the module
	out := make(map[uint64]module)
	var page [pageSize]byte
	err := k.tables.mapped(modulesStart, modulesEnd, func(va, phys uint64) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := k.budget.spend(); err != nil {
			return err
		}
		if k.mem.ReadPhys(page[:], phys) != nil {
			return nil // maps what is no RAM: a device
		}
		for i := 0; i < pageSize; i += 8 {
			at := va + uint64(i) - back
			if binary.LittleEndian.Uint64(page[i:]) != at || len(out) >= maxModules {
				continue
			}
			if m, err := k.module(at); err == nil && m.name != "" && m.state == moduleLive {
				out[at] = m
			}
		}
		return nil
	})
	return out, err
}

// moduleView is one way of finding modules.
type moduleView struct {
	name  string
	known bool // this kernel says how
	walk  func(context.Context) (map[uint64]module, error)
}

func (k *linuxKernel) moduleViews() []moduleView {
	plain := func(walk func() (map[uint64]module, error)) func(context.Context) (map[uint64]module, error) {
		return func(context.Context) (map[uint64]module, error) { return walk() }
	}
	has := func(symbol string, fields ...field) bool {
		_, ok := k.sym[symbol]
		return ok && !slices.ContainsFunc(fields, func(f field) bool { return f.size == 0 })
	}
	module := k.ModList.size != 0 && (k.ModBase.size != 0 || k.ModMem.size != 0)
	return []moduleView{
		{viewModList, module && has("modules"), plain(k.listedModules)},
		{viewModTree, module && has("mod_tree", k.ModTreeRoot, k.LatchTree, k.ModNodeNode), plain(k.treeModules)},
		{viewSysfs, module && has("module_kset", k.KSetList, k.KObjEntry, k.ModKObjMod), plain(k.sysfsModules)},
		{viewMemory, module && has("modules", k.ModMK, k.ModKObjMod), k.memoryModules},
	}
}

// moduleStates are the names of enum module_state (include/linux/module.h).
var moduleStates = [...]string{"live", "coming", "going", "unformed"}

// Modules implements Guest.
func (g *linuxGuest) Modules(ctx context.Context) ([]Module, error) {
	g = g.during(ctx)
	out, err := retry(ctx, g.k, func() ([]Module, error) { return g.modules(ctx) })
	if err != nil {
		return nil, fmt.Errorf("cannot list the modules: %w", err)
	}
	return out, nil
}

func (g *linuxGuest) modules(ctx context.Context) ([]Module, error) {
	views := g.k.moduleViews()
	if !views[0].known {
		return nil, fmt.Errorf("%w: it does not say where its modules are", ErrNotUnderstood)
	}
	hidden, err := g.hiddenModules(ctx, views)
	if err != nil {
		return nil, err
	}
	seen := make(map[uint64]*Module)
	for _, v := range views {
		if !v.known {
			continue
		}
		found, err := v.walk(ctx)
		if err != nil {
			return nil, fmt.Errorf("view %s: %w", v.name, err)
		}
		for addr, m := range found {
			if seen[addr] == nil {
				_, unlisted := hidden[addr]
				seen[addr] = &Module{Name: m.name, State: "unknown", Base: m.base, Size: m.size, Hidden: unlisted}
				if int(m.state) < len(moduleStates) {
					seen[addr].State = moduleStates[m.state]
				}
			}
			seen[addr].Views = append(seen[addr].Views, v.name)
		}
	}
	out := make([]Module, 0, len(seen))
	for _, m := range seen {
		out = append(out, *m)
	}
	slices.SortFunc(out, func(a, b Module) int { return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Base, b.Base)) })
	return out, nil
}

// moduleFindings compares the views of modules. Modules are loaded and removed
// while we look: samples must agree.
func (g *linuxGuest) moduleFindings(ctx context.Context) ([]Finding, error) {
	var out []Finding
	views := g.k.moduleViews()
	for _, v := range views {
		if !v.known {
			out = append(out, unchecked("modules in the view "+v.name, "this kernel does not say where they are"))
		}
	}
	if !views[0].known {
		return out, nil
	}
	hidden, err := g.hiddenModules(ctx, views)
	for _, f := range hidden {
		out = append(out, f)
	}
	slices.SortFunc(out, func(a, b Finding) int { return cmp.Compare(a.Subject, b.Subject) })
	return out, err
}

// hiddenModules are those that lsmod shows in none of several samples, by address.
func (g *linuxGuest) hiddenModules(ctx context.Context, views []moduleView) (hidden map[uint64]Finding, err error) {
	for i := range g.samples {
		if i > 0 {
			if err := pause(ctx, sampleGap); err != nil {
				return nil, err
			}
		}
		now, err := unlistedModules(ctx, views, g.samples)
		if err != nil {
			return nil, err
		}
		for addr, f := range now {
			if before, ok := hidden[addr]; i > 0 && (!ok || before.Subject != f.Subject) {
				delete(now, addr)
			}
		}
		if hidden = now; len(hidden) == 0 {
			break
		}
	}
	return hidden, nil
}

// unlistedModules are those that another view than the list shows.
func unlistedModules(ctx context.Context, views []moduleView, samples int) (map[uint64]Finding, error) {
	out := make(map[uint64]Finding)
	var listed map[uint64]module
	for i, v := range views {
		if !v.known {
			continue
		}
		found, err := v.walk(ctx)
		if err != nil {
			return nil, fmt.Errorf("view %s: %w", v.name, err)
		}
		if i == 0 {
			listed = found
			continue
		}
		for addr, m := range found {
			if _, ok := listed[addr]; ok || m.state != moduleLive {
				continue
			}
			f := out[addr]
			f.Kind, f.Severity, f.Subject, f.Views = HiddenModule, High, "module "+m.name, append(f.Views, v.name)
			f.Evidence = fmt.Sprintf("lsmod does not show it; its text is %d bytes at %#x; seen in %s, in %d samples that agree",
				m.size, m.base, strings.Join(f.Views, ", "), samples)
			out[addr] = f
		}
	}
	return out, nil
}
