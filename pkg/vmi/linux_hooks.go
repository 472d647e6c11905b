package vmi

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
)

// listingFunctions are what the guest's own listings of processes and sockets
// go through, and what rootkits therefore replace.
var listingFunctions = []string{
	"proc_pid_readdir", "proc_pid_lookup", "proc_root_readdir", "next_tgid", "proc_readdir",
	"iterate_dir", "filldir64", "filldir", "__x64_sys_getdents64", "__x64_sys_getdents",
	"tcp4_seq_show", "tcp6_seq_show", "udp4_seq_show", "udp6_seq_show", "raw_seq_show",
	"packet_seq_show", "inet_sk_diag_fill", "netlink_rcv_skb", "seq_read_iter", "m_show",
	"find_task_by_vpid", "__x64_sys_kill", "__x64_sys_recvmsg", "tpacket_rcv", "packet_rcv",
}

// listingPointers are members of constant tables that lead to such functions.
var listingPointers = []struct {
	table string
	field func(*linuxLayout) field
	name  string
}{
	{"proc_root_operations", func(l *linuxLayout) field { return l.FileIterate }, "iterate_shared"},
	{"proc_tgid_base_operations", func(l *linuxLayout) field { return l.FileIterate }, "iterate_shared"},
	{"tcp4_seq_ops", func(l *linuxLayout) field { return l.SeqShow }, "show"},
	{"tcp4_seq_ops", func(l *linuxLayout) field { return l.SeqNext }, "next"},
	{"tcp6_seq_ops", func(l *linuxLayout) field { return l.SeqShow }, "show"},
	{"udp_seq_ops", func(l *linuxLayout) field { return l.SeqShow }, "show"},
	{"udp6_seq_ops", func(l *linuxLayout) field { return l.SeqShow }, "show"},
	{"modules_op", func(l *linuxLayout) field { return l.SeqShow }, "show"},
}

// systemCalls is how many system calls the oldest kernel has that we read, 5.10.
const systemCalls = 441

// listingCalls names the system calls by which listings are made
// (arch/x86/entry/syscalls/syscall_64.tbl).
var listingCalls = map[uint64]string{
	0: "read", 45: "recvfrom", 47: "recvmsg", 62: "kill", 78: "getdents", 217: "getdents64", 257: "openat",
}

// hookFindings looks at the entries of the listing functions and at the tables
// that lead to them.
func (g *linuxGuest) hookFindings(context.Context) ([]Finding, error) {
	k := g.k
	if k.sym["_etext"] <= k.sym["_stext"] {
		return []Finding{unchecked("the kernel's functions", "this kernel does not say where its text ends")}, nil
	}
	modules, err := k.listedModules()
	if err != nil {
		modules = nil // only names the place where a hook leads
	}
	traced := k.tracing(modules)
	var out []Finding
	for _, name := range listingFunctions {
		va, ok := k.sym[name]
		if !ok || !k.inText(va) {
			continue // another version of the kernel, or in a module
		}
		var code [32]byte
		if err := k.read(code[:], va); err != nil {
			return nil, err
		}
		if how := k.entry(va, code[:], traced); how != "" {
			out = append(out, Finding{Kind: HookedFunction, Severity: Low, Subject: "function " + name, Evidence: how})
		}
	}
	for _, p := range listingPointers {
		f := p.field(k.linuxLayout)
		if at, ok := k.sym[p.table]; ok && f.size != 0 {
			if out, err = k.pointer(out, p.table+"."+p.name, at+uint64(f.off), traced); err != nil {
				return nil, err
			}
		}
	}
	if table, ok := k.sym["sys_call_table"]; ok {
		for number := range uint64(systemCalls) {
			name, ok := listingCalls[number]
			if !ok {
				name = fmt.Sprint(number)
			}
			if out, err = k.pointer(out, "system call "+name, table+8*number, traced); err != nil {
				return nil, err
			}
		}
	}
	return out, nil
}

func (k *linuxKernel) inText(va uint64) bool { return va >= k.sym["_stext"] && va < k.sym["_etext"] }

// pointer adds a finding if the function pointer at va leads out of the kernel.
func (k *linuxKernel) pointer(out []Finding, subject string, va uint64, traced tracing) ([]Finding, error) {
	to, err := k.u64(va)
	if err != nil {
		return nil, err
	}
	if k.inText(to) {
		return out, nil
	}
	how := fmt.Sprintf("it leads to %#x, outside the kernel's text, %s", to, traced.whose(to))
	return append(out, Finding{Kind: HookedTable, Severity: High, Subject: subject, Evidence: how}), nil
}

// endbr64 begins functions that may be called through pointers, on newer kernels.
var endbr64 = []byte{0xf3, 0x0f, 0x1e, 0xfa}

// entry says what is unusual about the first instruction of the function at va,
// "" if nothing is. Compilers put a call there for tracing, which the kernel
// turns into a no-operation while nobody traces.
func (k *linuxKernel) entry(va uint64, code []byte, traced tracing) string {
	start := va
	if rest, ok := bytes.CutPrefix(code, endbr64); ok {
		code, va = rest, va+uint64(len(endbr64))
	}
	var to uint64
	verb := "jumps to"
	switch le := binary.LittleEndian; {
	case code[0] == 0xe8, code[0] == 0xe9: // call or jmp rel32
		to = va + 5 + uint64(int64(int32(le.Uint32(code[1:]))))
		if code[0] == 0xe8 {
			verb = "calls"
		}
	case code[0] == 0xff && code[1] == 0x25: // jmp [rip+disp32]
		at := va + 6 + uint64(int64(int32(le.Uint32(code[2:]))))
		var err error
		if to, err = k.u64(at); err != nil {
			return fmt.Sprintf("it begins with a jump through %#x, which cannot be read", at)
		}
	// mov r64, imm64, then jmp or call r64, or push and ret.
	case code[0]&0xfe == 0x48 && code[1]&0xf8 == 0xb8 && (code[10] == 0xff || code[10] == 0x41 && code[11] == 0xff || code[10]&0xf8 == 0x50):
		to = le.Uint64(code[2:])
	case code[0] == 0x68 && code[5] == 0xc3: // push imm32, ret
		to = uint64(int64(int32(le.Uint32(code[1:]))))
	case code[0] == 0xcc:
		return "it begins with a breakpoint, as a probe sets" + traced.probed(k, start)
	default:
		return ""
	}
	if k.inText(to) {
		if verb == "calls" {
			return fmt.Sprintf("it begins with a call within the kernel's text, to %#x, as tracing makes it%s", to, traced.probed(k, start))
		}
		return ""
	}
	return fmt.Sprintf("it %s %#x where it begins, outside the kernel's text, %s; tracing and probes look alike%s", verb, to, traced.whose(to), traced.probed(k, start))
}
