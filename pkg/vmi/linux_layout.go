package vmi

import (
	"fmt"
	"reflect"
	"slices"
	"strings"
)

// linuxLayout is where everything lies in this kernel's structs that we read.
// The tags name the members for BTF, alternatives of other kernel versions
// after "|"; "?" marks those that not every kernel has (their size is 0 then).
type linuxLayout struct {
	TaskUsage      field `btf:"task_struct.usage"`
	TaskFlags      field `btf:"task_struct.flags"`
	TaskClass      field `btf:"task_struct.sched_class"`
	TaskTasks      field `btf:"task_struct.tasks"`
	TaskMM         field `btf:"task_struct.mm"`
	TaskExit       field `btf:"task_struct.exit_state"`
	TaskPID        field `btf:"task_struct.pid"`
	TaskTGID       field `btf:"task_struct.tgid"`
	TaskParent     field `btf:"task_struct.real_parent"`
	TaskChildren   field `btf:"task_struct.children"`
	TaskSibling    field `btf:"task_struct.sibling"`
	TaskLeader     field `btf:"task_struct.group_leader"`
	TaskThreadPID  field `btf:"task_struct.thread_pid"`
	TaskPIDLinks   field `btf:"task_struct.pid_links"`
	TaskThreadNode field `btf:"task_struct.thread_node"`
	TaskStart      field `btf:"task_struct.start_boottime|task_struct.real_start_time"`
	TaskCred       field `btf:"task_struct.cred"`
	TaskComm       field `btf:"task_struct.comm"`
	TaskFiles      field `btf:"task_struct.files"`
	TaskSignal     field `btf:"task_struct.signal"`

	TaskCgroups field `btf:"task_struct.cgroups?"`
	TaskNSProxy field `btf:"task_struct.nsproxy?"`

	CSSCgroup     field `btf:"css_set.dfl_cgrp?"`
	CgroupKN      field `btf:"cgroup.kn?"`
	CSSSubsys     field `btf:"css_set.subsys?"`
	SubsysCgroup  field `btf:"cgroup_subsys_state.cgroup?"`
	CgroupRoot    field `btf:"cgroup.root?"`
	KNName        field `btf:"kernfs_node.name?"`
	KNParent      field `btf:"kernfs_node.parent|kernfs_node.__parent?"`
	NSProxyNet    field `btf:"nsproxy.net_ns?"`
	NetInum       field `btf:"net.ns.inum?"`
	SignalThreads field `btf:"signal_struct.thread_head"`
	CredUID       field `btf:"cred.uid"`
	PIDTasks      field `btf:"pid.tasks"`
	PIDNumbers    field `btf:"pid.numbers"`
	UPIDNr        field `btf:"upid.nr"`

	PIDNSIDR   field `btf:"pid_namespace.idr"`
	IDRBase    field `btf:"idr.idr_base"`
	IDRHead    field `btf:"idr.idr_rt.xa_head"`
	NodeShift  field `btf:"xa_node.shift"`
	NodeSlots  field `btf:"xa_node.slots"`
	CacheSize  field `btf:"kmem_cache.size"`
	CachePad   field `btf:"kmem_cache.red_left_pad?"`
	CacheNode  field `btf:"kmem_cache.node?"`
	NodeSlabs  field `btf:"kmem_cache_node.nr_slabs?"`
	SlabCache  field `btf:"slab.slab_cache|page.slab_cache"`
	SlabCount  field `btf:"slab.objects|page.objects"`
	PageRecord field `btf:"sizeof page"`

	FilesTable   field `btf:"files_struct.fdt"`
	FilesTab     field `btf:"files_struct.fdtab?"`
	FilesArray   field `btf:"files_struct.fd_array?"`
	TableMax     field `btf:"fdtable.max_fds"`
	TableFD      field `btf:"fdtable.fd"`
	FileOps      field `btf:"file.f_op"`
	FileMapping  field `btf:"file.f_mapping?"`
	MappingPages field `btf:"address_space.i_pages.xa_head?"`
	FilePath     field `btf:"file.f_path"`
	FileInode    field `btf:"file.f_inode"`
	FilePrivate  field `btf:"file.private_data"`
	FileCount    field `btf:"file.f_count?"`
	FileRef      field `btf:"file.f_ref.refcnt?"`
	PathMount    field `btf:"path.mnt"`
	PathDentry   field `btf:"path.dentry"`
	MountVFS     field `btf:"mount.mnt"`
	MountParent  field `btf:"mount.mnt_parent"`
	MountPoint   field `btf:"mount.mnt_mountpoint"`
	VFSMountRoot field `btf:"vfsmount.mnt_root"`
	DentryParent field `btf:"dentry.d_parent"`
	DentryName   field `btf:"dentry.d_name.name|dentry.__d_name.name"`
	DentryLen    field `btf:"dentry.d_name.len|dentry.__d_name.len"`
	InodeNumber  field `btf:"inode.i_ino"`

	MMExe      field `btf:"mm_struct.exe_file"`
	MMPGD      field `btf:"mm_struct.pgd"`
	MMArgStart field `btf:"mm_struct.arg_start"`
	MMArgEnd   field `btf:"mm_struct.arg_end"`
	MMAuxv     field `btf:"mm_struct.saved_auxv"`

	SockPort      field `btf:"sock.__sk_common.skc_num"`
	SockPeerPort  field `btf:"sock.__sk_common.skc_dport"`
	SockPeer4     field `btf:"sock.__sk_common.skc_daddr"`
	SockLocal4    field `btf:"sock.__sk_common.skc_rcv_saddr"`
	SockPeer6     field `btf:"sock.__sk_common.skc_v6_daddr?"`
	SockLocal6    field `btf:"sock.__sk_common.skc_v6_rcv_saddr?"`
	SockFamily    field `btf:"sock.__sk_common.skc_family"`
	SockState     field `btf:"sock.__sk_common.skc_state"`
	SockV6Only    field `btf:"sock.__sk_common.skc_ipv6only"`
	SockNet       field `btf:"sock.__sk_common.skc_net.net"`
	SockNode      field `btf:"sock.__sk_common.skc_node"`
	SockBindNode  field `btf:"sock.__sk_common.skc_bind_node"`
	SockProtocol  field `btf:"sock.sk_protocol"`
	SockType      field `btf:"sock.sk_type"`
	SockSocket    field `btf:"sock.sk_socket"`
	SockULPOps    field `btf:"inet_connection_sock.icsk_ulp_ops?"`
	SockULPData   field `btf:"inet_connection_sock.icsk_ulp_data?"`
	SubflowConn   field `btf:"mptcp_subflow_context.conn?"`
	SocketFile    field `btf:"socket.file"`
	SocketSock    field `btf:"socket.sk"`
	SocketInode   field `btf:"socket_alloc.vfs_inode"`
	HashBind      field `btf:"inet_hashinfo.bhash"`
	HashBindSize  field `btf:"inet_hashinfo.bhash_size"`
	BindHead      field `btf:"inet_bind_hashbucket.chain"`
	BindHeadSize  field `btf:"sizeof inet_bind_hashbucket"`
	BucketNode    field `btf:"inet_bind_bucket.node"`
	BucketPort    field `btf:"inet_bind_bucket.port"`
	BucketNet     field `btf:"inet_bind_bucket.ib_net.net"`
	BucketOwners  field `btf:"inet_bind_bucket.owners?"`
	BucketSecond  field `btf:"inet_bind_bucket.bhash2?"`
	Bucket2Node   field `btf:"inet_bind2_bucket.bhash_node?"`
	Bucket2Owners field `btf:"inet_bind2_bucket.owners?"`

	UDPHash     field `btf:"udp_table.hash"`
	UDPMask     field `btf:"udp_table.mask"`
	UDPSlotHead field `btf:"udp_hslot.head"`
	UDPSlotSize field `btf:"sizeof udp_hslot"`
	RawHash     field `btf:"raw_hashinfo.ht?"`
	PingHash    field `btf:"ping_table.hash?"`
	NetList     field `btf:"net.list"`
	NetHashMix  field `btf:"net.hash_mix"`
	NetUDPTable field `btf:"net.ipv4.udp_table?"`
	NetPacket   field `btf:"net.packet.sklist?"`
	NetXDP      field `btf:"net.xdp.list?"`
	AcceptQueue field `btf:"inet_connection_sock.icsk_accept_queue.qlen?"`
	EstHash     field `btf:"inet_hashinfo.ehash?"`
	EstMask     field `btf:"inet_hashinfo.ehash_mask?"`
	EstHead     field `btf:"inet_ehash_bucket.chain?"`
	EstSlotSize field `btf:"sizeof inet_ehash_bucket?"`

	RunCurrent   field `btf:"rq.curr?"`
	RunIdle      field `btf:"rq.idle?"`
	RunFair      field `btf:"rq.cfs_tasks?"`
	RunExt       field `btf:"rq.scx.runnable_list?"`
	RunRT        field `btf:"rq.rt.active.queue?"`
	RunDeadline  field `btf:"rq.dl.root.rb_root.rb_node?"`
	TaskFair     field `btf:"task_struct.se.group_node?"`
	TaskExt      field `btf:"task_struct.scx.runnable_node?"`
	TaskRT       field `btf:"task_struct.rt.run_list?"`
	TaskDeadline field `btf:"task_struct.dl.rb_node?"`

	ListenHash     field `btf:"inet_hashinfo.lhash2?"`
	ListenMask     field `btf:"inet_hashinfo.lhash2_mask?"`
	ListenSlots    field `btf:"inet_hashinfo.listening_hash?"`
	ListenHead     field `btf:"inet_listen_hashbucket.nulls_head?"`
	ListenHeadOld  field `btf:"inet_listen_hashbucket.head|inet_listen_hashbucket.nulls_head?"`
	ListenSlotSize field `btf:"sizeof inet_listen_hashbucket?"`
	SockOwned      field `btf:"sock.sk_lock.owned?"`
	SockLock       field `btf:"sock.sk_lock.slock?"`
	DentryHashed   field `btf:"dentry.d_hash.pprev?"`

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

	TaskRings     field `btf:"task_struct.io_uring?"`
	RingsHead     field `btf:"io_uring_task.xa.xa_head?"`
	RingsNode     field `btf:"io_tctx_node.ctx?"`
	RingCount     field `btf:"io_ring_ctx.nr_user_files?"`
	RingFiles     field `btf:"io_ring_ctx.file_table.files?"`
	RingNodeCount field `btf:"io_ring_ctx.file_table.data.nr?"`
	RingNodes     field `btf:"io_ring_ctx.file_table.data.nodes?"`
	RingNodeFile  field `btf:"io_rsrc_node.file_ptr?"`

	SockQueue   field `btf:"sock.sk_receive_queue?"`
	SKBuffCB    field `btf:"sk_buff.cb?"`
	NetUnix     field `btf:"net.unx.table.buckets?"`
	UnixPeer    field `btf:"unix_sock.peer?"`
	UnixParmsFP field `btf:"unix_skb_parms.fp?"`
	FPCount     field `btf:"scm_fp_list.count?"`
	FPFiles     field `btf:"scm_fp_list.fp?"`

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
	ProtoSize   field `btf:"proto.obj_size?"`
	ProtoHash   field `btf:"proto.h?"`
	NetDeathRow field `btf:"net.ipv4.tcp_death_row.hashinfo?"`

	QueuedLock   field `btf:"qrwlock.wlocked?"`
	TrampolineAt field `btf:"real_mode_header.trampoline_pgd"`
}

// layoutStructs are the structs that linuxLayout's tags name.
func layoutStructs() map[string]bool {
	want := make(map[string]bool)
	for _, f := range reflect.VisibleFields(reflect.TypeFor[linuxLayout]()) {
		for spec := range strings.SplitSeq(f.Tag.Get("btf"), "|") {
			name, _, _ := strings.Cut(strings.TrimPrefix(spec, "sizeof "), ".")
			want[name] = true
		}
	}
	for _, v := range slices.Concat(vetSizes, vetProtocols) {
		want[v.name] = true
	}
	return want
}

// newLinuxLayout looks all members up.
func newLinuxLayout(b *btf) (*linuxLayout, error) {
	l := new(linuxLayout)
	v := reflect.ValueOf(l).Elem()
	for i := range v.NumField() {
		tag := v.Type().Field(i).Tag.Get("btf")
		specs, optional := strings.CutSuffix(tag, "?")
		f, ok := lookUpMember(b, specs)
		if !ok && !optional {
			return nil, fmt.Errorf("%w: no member %s", errBTF, specs)
		}
		v.Field(i).Set(reflect.ValueOf(f))
	}
	return l, nil
}

func lookUpMember(b *btf, specs string) (field, bool) {
	for spec := range strings.SplitSeq(specs, "|") {
		if name, ok := strings.CutPrefix(spec, "sizeof "); ok {
			if size, ok := b.structSize(name); ok {
				return field{size: size}, true
			}
		} else if f, ok := b.member(strings.Split(spec, ".")...); ok {
			return f, true
		}
	}
	return field{}, false
}
