package vmi

// processLayout is for processes: what they are, their parents, and how they are found.
// The tags are explained at linuxLayout.
type processLayout struct {
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

	PIDNSIDR  field `btf:"pid_namespace.idr"`
	IDRBase   field `btf:"idr.idr_base"`
	IDRHead   field `btf:"idr.idr_rt.xa_head"`
	NodeShift field `btf:"xa_node.shift"`
	NodeSlots field `btf:"xa_node.slots"`

	MMExe      field `btf:"mm_struct.exe_file"`
	MMPGD      field `btf:"mm_struct.pgd"`
	MMArgStart field `btf:"mm_struct.arg_start"`
	MMArgEnd   field `btf:"mm_struct.arg_end"`
	MMAuxv     field `btf:"mm_struct.saved_auxv"`

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
}
