package vmi

// kernelLayout is for the kernel itself: its allocator, its modules, and what runs in it besides.
// The tags are explained at linuxLayout.
type kernelLayout struct {
	CacheSize  field `btf:"kmem_cache.size"`
	CachePad   field `btf:"kmem_cache.red_left_pad?"`
	CacheNode  field `btf:"kmem_cache.node?"`
	NodeSlabs  field `btf:"kmem_cache_node.nr_slabs?"`
	SlabCache  field `btf:"slab.slab_cache|page.slab_cache"`
	SlabCount  field `btf:"slab.objects|page.objects"`
	PageRecord field `btf:"sizeof page"`

	BPFNode       field `btf:"bpf_ksym.lnode?"`
	BPFStart      field `btf:"bpf_ksym.start?"`
	BPFEnd        field `btf:"bpf_ksym.end?"`
	BPFName       field `btf:"bpf_ksym.name?"`
	TraceFunc     field `btf:"ftrace_ops.func?"`
	TraceNext     field `btf:"ftrace_ops.next?"`
	TraceCode     field `btf:"ftrace_ops.trampoline?"`
	TraceCodeSize field `btf:"ftrace_ops.trampoline_size?"`
	ProbeAddr     field `btf:"kprobe.addr?"`
	ProbePre      field `btf:"kprobe.pre_handler?"`
	ProbePost     field `btf:"kprobe.post_handler?"`
	ReturnHandler field `btf:"kretprobe.handler?"`
	NetProc       field `btf:"net.proc_net?"`
	ProcSubdir    field `btf:"proc_dir_entry.subdir?"`
	ProcNode      field `btf:"proc_dir_entry.subdir_node?"`
	ProcName      field `btf:"proc_dir_entry.name?"`
	ProcSeq       field `btf:"proc_dir_entry.seq_ops?"`
	ProcOps       field `btf:"proc_dir_entry.proc_ops?"`

	ModState    field `btf:"module.state?"`
	ModList     field `btf:"module.list?"`
	ModName     field `btf:"module.name?"`
	ModBase     field `btf:"module.core_layout.base?"`
	ModSize     field `btf:"module.core_layout.size?"`
	ModMem      field `btf:"module.mem?"`
	MemBase     field `btf:"module_memory.base?"`
	MemSize     field `btf:"module_memory.size?"`
	ModMK       field `btf:"module.mkobj?"`
	ModKObj     field `btf:"module_kobject.kobj?"`
	ModKObjMod  field `btf:"module_kobject.mod?"`
	ModTreeRoot field `btf:"mod_tree_root.root?"`
	LatchTree   field `btf:"latch_tree_root.tree?"`
	ModNodeMod  field `btf:"mod_tree_node.mod?"`
	ModNodeNode field `btf:"mod_tree_node.node?"`
	KSetList    field `btf:"kset.list?"`
	KObjEntry   field `btf:"kobject.entry?"`
	SeqShow     field `btf:"seq_operations.show?"`
	SeqNext     field `btf:"seq_operations.next?"`
	FileIterate field `btf:"file_operations.iterate_shared?"`

	CacheObject field `btf:"kmem_cache.object_size?"` // what follows is for vetting

	QueuedLock   field `btf:"qrwlock.wlocked?"`
	TrampolineAt field `btf:"real_mode_header.trampoline_pgd"`
}
