package vmi

import (
	"errors"
	"fmt"
)

// What an operator gives, and what the guest's memory says of its types, is held
// against what the running kernel itself has worked out: the sizes of the objects that it allocates, the pointers in its
// first task, the entries of its table of system calls.

// vetSizes are structs with a cache or a protocol that says how large they are.
// Those whose size depends on the machine (task_struct, mm_struct) are not among
// them.
var vetSizes = []struct{ name, symbol string }{
	{"files_struct", "files_cachep"}, {"file", "filp_cachep"}, {"dentry", "dentry_cache"}, {"inode", "inode_cachep"},
	{"cred", "cred_jar"}, {"signal_struct", "signal_cachep"}, {"socket_alloc", "sock_inode_cachep"}, {"net", "net_cachep"},
	{"mount", "mnt_cache"}, {"nsproxy", "nsproxy_cachep"}, {"kernfs_node", "kernfs_node_cache"},
}

var vetProtocols = []struct{ name, symbol string }{
	{"tcp_sock", "tcp_prot"}, {"udp_sock", "udp_prot"}, {"raw_sock", "raw_prot"},
	{"tcp6_sock", "tcpv6_prot"}, {"udp6_sock", "udpv6_prot"},
}

// vetCalls are system calls by number (arch/x86/entry/syscalls/syscall_64.tbl).
var vetCalls = map[uint64]string{
	0: "__x64_sys_read", 1: "__x64_sys_write", 3: "__x64_sys_close", 41: "__x64_sys_socket",
	42: "__x64_sys_connect", 49: "__x64_sys_bind", 59: "__x64_sys_execve", 62: "__x64_sys_kill", 217: "__x64_sys_getdents64",
}

// minVetted is how many comparisons must have been possible.
const minVetted = 10

// vetSymbols are the symbols that vet looks at.
func vetSymbols() []string {
	names := []string{"init_files", "init_signals", "init_cred", "init_nsproxy", "init_struct_pid", "rawv6_prot"}
	for _, v := range vetSizes {
		names = append(names, v.symbol)
	}
	for _, v := range vetProtocols {
		names = append(names, v.symbol)
	}
	for _, name := range vetCalls {
		names = append(names, name)
	}
	return names
}

// vetHelp refuses symbols or types that an operator gave and that are not this
// kernel's.
func (k *linuxKernel) vetHelp() error {
	if k.vetted == "" {
		return nil
	}
	if err := k.vet(k.vetFirstTask, k.vetObjects, k.vetSystemCalls, k.vetNetwork); err != nil {
		return fmt.Errorf("the %s %w: %w", k.vetted, errHelp, err)
	}
	return nil
}

// vetOwn refuses types that lie in the guest's memory and are not those by which
// its kernel works: they are data there, and who may write to it can change them.
// The kernel must have made what they are compared with. Its system calls are not
// looked at: another function there is a finding and no other kernel.
func (k *linuxKernel) vetOwn() error {
	if k.vetted != "" {
		return nil
	}
	if err := k.vet(k.vetFirstTask, k.vetObjects, k.vetNetwork); err != nil {
		return fmt.Errorf("its own BTF does not fit it: %w", err)
	}
	return nil
}

func (k *linuxKernel) vet(checks ...func() (int, error)) error {
	agreed := 0
	for _, check := range checks {
		n, err := check()
		if err != nil {
			return err
		}
		agreed += n
	}
	if agreed < minVetted {
		return fmt.Errorf("as far as can be told: only %d of its values could be compared", agreed)
	}
	return nil
}

// vetFirstTask compares pointers of the first task, which is part of the image,
// with the symbols of what they lead to.
func (k *linuxKernel) vetFirstTask() (agreed int, err error) {
	t, err := k.task(k.sym["init_task"])
	if err != nil {
		return 0, err
	}
	for _, p := range []struct {
		member, symbol string
		value          uint64
	}{
		{"files", "init_files", t.files}, {"signal", "init_signals", t.signal}, {"cred", "init_cred", t.cred},
		{"nsproxy", "init_nsproxy", t.nsproxy}, {"thread_pid", "init_struct_pid", t.threadPID},
		{"real_parent", "init_task", t.parent}, {"group_leader", "init_task", t.leader},
	} {
		va, ok := k.sym[p.symbol]
		if !ok {
			continue
		}
		if va != p.value {
			return agreed, fmt.Errorf("%s of its first task is %#x, %s is at %#x", p.member, p.value, p.symbol, va)
		}
		agreed++
	}
	if !k.linked(t.addr + uint64(k.TaskTasks.off)) {
		return agreed, errors.New("its first task is not in a list of tasks")
	}
	return agreed, nil
}

// vetObjects compares the sizes of objects. A cache that several structs share
// has the largest one's size, so that some of them may be larger, but not most.
func (k *linuxKernel) vetObjects() (agreed int, err error) {
	larger := 0
	for _, v := range vetSizes {
		va, ok := k.sym[v.symbol]
		if !ok {
			continue
		}
		cache, err := k.u64(va)
		if err != nil {
			return agreed, err
		}
		size, err := k.u32(cache + uint64(k.CacheObject.off))
		if err != nil {
			return agreed, fmt.Errorf("there is no cache of %s: %w", v.name, err)
		}
		switch want, ok := k.sizes[v.name]; {
		case !ok || size < want:
			return agreed, fmt.Errorf("its struct %s has at most %d bytes, not %d", v.name, size, want)
		case size > want:
			larger++
		default:
			agreed++
		}
	}
	if larger > agreed {
		return agreed, fmt.Errorf("of its caches %d are larger than their structs, and %d are not", larger, agreed)
	}
	for _, v := range vetProtocols {
		va, ok := k.sym[v.symbol]
		if !ok {
			continue
		}
		size, err := k.u32(va + uint64(k.ProtoSize.off))
		if err != nil {
			return agreed, err
		}
		if want := k.sizes[v.name]; size != want {
			return agreed, fmt.Errorf("its struct %s has %d bytes, not %d", v.name, size, want)
		}
		agreed++
	}
	return agreed, nil
}

// vetSystemCalls compares functions with the tables that name them.
func (k *linuxKernel) vetSystemCalls() (agreed int, err error) {
	if text := k.sym["_stext"]; text%imageAlign != 0 {
		return 0, fmt.Errorf("its text would begin at %#x", text)
	}
	table, ok := k.sym["sys_call_table"]
	if !ok {
		return 0, nil
	}
	for number, name := range vetCalls {
		want, ok := k.sym[name]
		if !ok {
			continue
		}
		got, err := k.u64(table + 8*number)
		if err != nil {
			return agreed, err
		}
		if got != want {
			return agreed, fmt.Errorf("system call %d leads to %#x, %s is at %#x", number, got, name, want)
		}
		agreed++
	}
	return agreed, nil
}

// vetNetwork compares the symbols of the tables of sockets, which are the last of
// the image, with what leads there.
func (k *linuxKernel) vetNetwork() (agreed int, err error) {
	first := k.sym["init_net"]
	nets, err := k.namespaces()
	if err != nil || len(nets) == 0 || first != 0 && nets[0].addr != first {
		return 0, errors.Join(fmt.Errorf("its network namespaces do not begin with init_net, at %#x", first), err)
	}
	for _, p := range []struct {
		symbol string
		owner  uint64 // whose member it is
		member field
	}{
		{"tcp_hashinfo", first, k.NetDeathRow}, {"tcp_hashinfo", k.sym["tcp_prot"], k.ProtoHash},
		{"udp_table", first, k.NetUDPTable}, {"udp_table", k.sym["udp_prot"], k.ProtoHash},
		{"raw_v4_hashinfo", k.sym["raw_prot"], k.ProtoHash}, {"raw_v6_hashinfo", k.sym["rawv6_prot"], k.ProtoHash},
	} {
		want, ok := k.sym[p.symbol]
		if !ok || p.owner == 0 || p.member.size == 0 {
			continue
		}
		got, err := k.member(p.owner, p.member)
		if err != nil {
			return agreed, err
		}
		if got == 0 { // from 6.1 on protocols do not name those that namespaces may have of their own
			continue
		}
		if got != want {
			return agreed, fmt.Errorf("%s is at %#x, not %#x", p.symbol, got, want)
		}
		agreed++
	}
	return agreed, nil
}
