package vmi

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
)

// wantedSymbols are the kernel symbols that we look up; those that are needed
// are true, others do without.
var wantedSymbols = map[string]bool{
	"linux_banner": true, "_stext": true, "init_task": true, "init_pid_ns": true,
	"net_namespace_list": true, "tcp_hashinfo": true, "socket_file_ops": true,
	"__start_BTF": true, "__stop_BTF": true, "init_top_pgt": true, "real_mode_header": true,
	"udp_table": false, "init_net": false, "raw_v4_hashinfo": false, "raw_v6_hashinfo": false,
	"ping_table": false, "subflow_ulp_ops": false, "tasklist_lock": false,
	"unix_socket_table": false, "runqueues": false, "__per_cpu_offset": false, "nr_cpu_ids": false,
	"bpf_kallsyms": false, "ftrace_ops_list": false, "ftrace_list_end": false, "kprobe_table": false,
	"pre_handler_kretprobe": false, "proc_root": false,
	"task_struct_cachep": false, "nr_node_ids": false, "page_offset_base": false, "vmemmap_base": false,
	"modules": false, "mod_tree": false, "system_state": false, "module_kset": false, "_etext": false, "sys_call_table": false,
}

// Where the regions of the kernel's address space begin if it does not say
// (CONFIG_DYNAMIC_MEMORY_LAYOUT off; Documentation/arch/x86/x86_64/mm.rst).
const (
	direct4, direct5   = 0xffff888000000000, 0xff11000000000000
	vmemmap4, vmemmap5 = 0xffffea0000000000, 0xffd4000000000000
)

// errStarting: there is a kernel whose page tables confirm what was found, but it
// has not got far enough.
var errStarting = fmt.Errorf("%w: its kernel is starting", ErrNotReady)

// errRemains: what a kernel says of itself is there, but its page tables are not,
// or the machine was started again since.
var errRemains = fmt.Errorf("%w: only the remains of a kernel are there", ErrNotReady)

// findLinux finds the kernel that runs in mem by what is there.
func findLinux(ctx context.Context, mem Memory, help linuxHelp) (*linuxKernel, error) {
	infos, err := findVMCoreInfo(ctx, mem)
	if err != nil {
		return nil, err
	}
	// A rebooted machine keeps the pages of its former kernels; the checks
	// of identity leave the one that runs.
	var failed error
	for _, info := range infos {
		k, err := discoverLinux(ctx, mem, info, help)
		if err == nil {
			return k, nil
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if failed == nil || errors.Is(failed, errRemains) || errors.Is(err, ErrNotReady) && !errors.Is(err, errRemains) {
			failed = err
		}
	}
	// Not while it starts: the search reads all memory.
	if errors.Is(failed, ErrNotReady) && !errors.Is(failed, errRemains) {
		return nil, failed
	}
	// Before 6.1 the text does not say where the symbols are, but where the image
	// is, and looking there first saves reading all memory.
	everything := []Range{{0, maxPhys}}
	var notFound error
	for _, within := range [][]Range{imagesOf(infos), everything} {
		k, err := searchLinux(ctx, mem, within, help)
		if err == nil {
			return k, nil
		}
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if errors.Is(err, errStarting) {
			return nil, err
		}
		notFound = stronger(notFound, err)
	}
	if failed != nil && !errors.Is(notFound, ErrNotUnderstood) {
		notFound = failed // it says more: there is a kernel
	}
	if help.systemMap == "" {
		return nil, notFound
	}
	k, err := openByMap(ctx, mem, infos, help)
	switch {
	case err == nil, ctx.Err() != nil, errors.Is(err, ErrNotReady):
		return k, err
	case errors.Is(notFound, ErrNotReady):
		return nil, fmt.Errorf("%w; %w", notFound, err)
	}
	return nil, fmt.Errorf("%w; %w", notFound, err)
}

// imagesOf are the places where kernels would lie by what they say themselves.
func imagesOf(infos []vmcoreinfo) []Range {
	var out []Range
	for _, info := range infos {
		text, ok := info.symbol("_stext")
		base, ok2 := info.number("phys_base")
		if start := text - imageBase + base; ok && ok2 && inImage(text) && start < maxPhys {
			out = append(out, Range{start, start + maxImage})
		}
	}
	return out
}

// discoverLinux builds a kernel from its VMCOREINFO, checking each claim
// against the page tables.
func discoverLinux(ctx context.Context, mem Memory, info vmcoreinfo, help linuxHelp) (*linuxKernel, error) {
	fail := func(what string, err error) (*linuxKernel, error) {
		return nil, fmt.Errorf("%w: Linux %s: cannot %s: %w", ErrNotUnderstood, info.release, what, err)
	}
	k := newLinuxKernel(space{}, nil, help)
	k.release = info.release
	if err := k.locate(ctx, mem, info); err != nil {
		return fail("find its page tables", err)
	}
	stext, _ := info.symbol("_stext")
	if !k.runs(stext) {
		return nil, fmt.Errorf("Linux %s: %w", info.release, errRemains)
	}
	table, err := kallsymsFromInfo(&k.space, info)
	if err != nil {
		return fail("find its symbols", err)
	}
	if k.sym, err = readSymbols(&k.space, table, symbolNames(), "_stext", stext); err != nil {
		return fail("read its symbols", err)
	}
	if err := k.finish(); err != nil {
		if errors.Is(err, ErrNotReady) {
			return nil, fmt.Errorf("Linux %s: %w", info.release, err)
		}
		return fail("use it", err)
	}
	return k, nil
}

func symbolNames() map[string]bool {
	names := make(map[string]bool, len(wantedSymbols))
	for name := range wantedSymbols {
		names[name] = true
	}
	for _, name := range listingFunctions {
		names[name] = true
	}
	for _, p := range listingPointers {
		names[p.table] = true
	}
	for _, f := range listingFiles {
		names[f.table] = true
	}
	for _, name := range vetSymbols() {
		names[name] = true
	}
	return names
}

// locate sets up address translation for the kernel image.
func (k *linuxKernel) locate(ctx context.Context, mem Memory, info vmcoreinfo) error {
	limit, err := memoryLimit(mem)
	if err != nil {
		return err
	}
	base, ok := info.number("phys_base")
	if !ok {
		return errors.New("VMCOREINFO has no phys_base")
	}
	root, ok := info.symbol("init_top_pgt")
	if !ok {
		root, ok = info.symbol("swapper_pg_dir")
	}
	if !ok || !inImage(root) {
		return errors.New("VMCOREINFO has no init_top_pgt")
	}
	k.space = space{mem: mem, physBase: base, limit: limit, budget: &budget{ctx: ctx, left: maxReads}}
	levels := 4
	if l5, _ := info.number("pgtable_l5_enabled"); l5 == 1 {
		levels = 5
	}
	k.tables = pageTable{mem: mem, root: k.imagePhys(root), levels: levels}
	return nil
}

// memoryLimit is the end of the highest range.
func memoryLimit(mem Memory) (uint64, error) {
	ranges, err := mem.Ranges()
	if err != nil || len(ranges) == 0 {
		return 0, errors.Join(errors.New("no memory"), err)
	}
	return ranges[len(ranges)-1].End, nil
}

// finish takes the steps that the symbols make possible, once they have been
// proven right.
func (k *linuxKernel) finish() error {
	for _, name := range slices.Sorted(maps.Keys(wantedSymbols)) { // the reason is always the same
		needed := wantedSymbols[name]
		if va, ok := k.sym[name]; needed && (!ok || !inImage(va)) {
			return fmt.Errorf("no symbol %s", name)
		}
	}
	k.tables.root = k.imagePhys(k.sym["init_top_pgt"]) // VMCOREINFO was only believed so far
	if err := k.gate(); err != nil {
		return err
	}
	if err := k.readLayout(); err != nil {
		return err
	}
	if err := k.findRegions(); err != nil {
		return err
	}
	for _, check := range []func() error{k.vetHelp, k.ready, k.vetOwn} {
		if err := check(); err != nil {
			return err
		}
	}
	k.help, k.sizes = linuxHelp{}, nil
	return k.identify()
}

// gate holds the profile against the page tables: both must translate the
// address of the banner alike, and the banner must be there.
func (k *linuxKernel) gate() error {
	va := k.sym["linux_banner"]
	phys, _, err := k.tables.walk(va)
	if err != nil {
		return fmt.Errorf("its page tables do not map it: %w", err)
	}
	if phys != k.imagePhys(va) {
		return fmt.Errorf("its page tables put linux_banner at %#x, its profile at %#x", phys, k.imagePhys(va))
	}
	banner, err := k.cstring(va, 512)
	if err != nil {
		return err
	}
	if want := "Linux version " + k.release + " "; len(banner) < len(want) || banner[:len(want)] != want {
		return errors.New("its banner is not where its profile says")
	}
	return nil
}

// readLayout reads the kernel's own type information, or where it has none that
// can be used, the operator's.
func (k *linuxKernel) readLayout() error {
	types, err := k.ownTypes()
	if err != nil && k.help.btf != "" {
		raw, failed := readBTFFile(k.help.btf)
		if failed == nil {
			types, failed = parseBTF(raw, layoutStructs())
		}
		if failed != nil {
			return fmt.Errorf("%w; the BTF file %s: %w", err, k.help.btf, failed)
		}
		k.vetted = "BTF file " + k.help.btf
	} else if err != nil {
		return err
	}
	if k.linuxLayout, err = newLinuxLayout(types); err != nil {
		return err
	}
	ofTask := []field{k.TaskUsage, k.TaskFlags, k.TaskClass, k.TaskTasks, k.TaskMM, k.TaskExit, k.TaskPID,
		k.TaskTGID, k.TaskParent, k.TaskChildren, k.TaskSibling, k.TaskLeader, k.TaskThreadPID, k.TaskThreadNode,
		k.TaskStart, k.TaskCred, k.TaskComm, k.TaskFiles, k.TaskSignal}
	for _, f := range []field{k.TaskCgroups, k.TaskNSProxy} {
		if f.size != 0 {
			ofTask = append(ofTask, f)
		}
	}
	k.taskSpan, k.taskAt = spanOf(ofTask...), partsOf(ofTask)
	ofSock := []field{k.SockPort, k.SockPeerPort, k.SockPeer4, k.SockLocal4, k.SockPeer6, k.SockLocal6, k.SockFamily,
		k.SockState, k.SockV6Only, k.SockNet, k.SockProtocol, k.SockSocket}
	k.sockSpan, k.sockAt = spanOf(ofSock...), partsOf(ofSock)
	k.sizes = make(map[string]uint32)
	for _, v := range slices.Concat(vetSizes, vetProtocols) {
		if size, ok := types.structSize(v.name); ok {
			k.sizes[v.name] = size
		}
	}
	return nil
}

// ownTypes is the kernel's own type information.
func (k *linuxKernel) ownTypes() (*btf, error) {
	start, stop := k.sym["__start_BTF"], k.sym["__stop_BTF"]
	if stop <= start || stop-start > maxBTF {
		return nil, fmt.Errorf("%w: %d bytes of it", errBTF, stop-start)
	}
	raw := make([]byte, stop-start)
	if err := k.read(raw, start); err != nil {
		return nil, err
	}
	return parseBTF(raw, layoutStructs())
}

// findRegions learns where the direct map and the page records are.
func (k *linuxKernel) findRegions() error {
	direct, vmemmap := uint64(direct4), uint64(vmemmap4)
	if k.tables.levels == 5 {
		direct, vmemmap = direct5, vmemmap5
	}
	for name, to := range map[string]*uint64{"page_offset_base": &direct, "vmemmap_base": &vmemmap} {
		if va, ok := k.sym[name]; ok {
			value, err := k.u64(va)
			if err != nil {
				return err
			}
			*to = value
		}
	}
	// The direct map must map what it claims: the page of the image's banner.
	phys := k.imagePhys(k.sym["linux_banner"])
	if got, _, err := k.tables.walk(direct + phys); err != nil || got != phys {
		return fmt.Errorf("its direct map is not at %#x (%v)", direct, err)
	}
	k.direct, k.vmemmap = direct, vmemmap
	return nil
}

// booted is the first value of system_state with all parts of the kernel set up
// (enum system_states in include/linux/kernel.h).
const booted = 2

// ready says ErrNotReady while the kernel is still starting.
func (k *linuxKernel) ready() error {
	if va, ok := k.sym["system_state"]; ok {
		if state, err := k.u32(va); err != nil || state < booted {
			return errors.Join(ErrNotReady, err)
		}
	}
	hash, err := k.member(k.sym["tcp_hashinfo"], k.HashBind)
	if err != nil {
		return err
	}
	children, err := k.member(k.sym["init_task"], k.TaskChildren)
	if err != nil {
		return err
	}
	if hash == 0 || children == 0 || children == k.sym["init_task"]+uint64(k.TaskChildren.off) {
		return ErrNotReady
	}
	idle, err := k.task(k.sym["init_task"])
	if err != nil {
		return err
	}
	if idle.pid != 0 || !bytes.HasPrefix([]byte(idle.comm), []byte("swapper")) {
		return fmt.Errorf("its first task is called %q", idle.comm)
	}
	return nil
}
