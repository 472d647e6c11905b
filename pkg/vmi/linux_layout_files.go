package vmi

// fileLayout is for what processes have open, and for the paths to it.
// The tags are explained at linuxLayout.
type fileLayout struct {
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

	DentryHashed field `btf:"dentry.d_hash.pprev?"`

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
}
