package vmi

import (
	"cmp"
	"context"
	"fmt"
	"slices"
)

// The kernel itself leads calls elsewhere: ftrace, kprobes and eBPF. What each
// has registered says who asked for it, and so what is behind a call at the
// beginning of a function.

// Bounds on what is registered.
const (
	maxTracers  = 1 << 14
	probeSlots  = 64 // KPROBE_TABLE_SIZE
	probeOffset = 16 // a probe this far into a function is at its beginning
)

// code is a stretch of kernel addresses, and whose it is.
type code struct {
	start, end uint64
	whose      string
}

// handler is a function that the kernel calls when something traced runs.
type handler struct {
	to   uint64 // the function
	at   uint64 // of a probe: where; 0: of ftrace
	kind string
}

// tracing is all that is registered.
type tracing struct {
	code     []code
	handlers []handler
}

// tracing reads what is registered. It changes while it is read: what cannot be
// read is left out.
func (k *linuxKernel) tracing(modules map[uint64]module) tracing {
	var t tracing
	for _, m := range modules {
		t.code = append(t.code, code{m.base, m.base + m.size, "module " + m.name})
	}
	k.programs(&t)
	k.ftrace(&t)
	k.probes(&t)
	return t
}

// programs are those of eBPF, and the trampolines that lead to them.
func (k *linuxKernel) programs(t *tracing) {
	head, ok := k.sym["bpf_kallsyms"]
	if !ok || k.BPFNode.size == 0 || k.BPFStart.size == 0 || k.BPFEnd.size == 0 || k.BPFName.size == 0 {
		return
	}
	_ = k.list(head, maxTracers, func(node uint64) error {
		r, err := k.record(node-uint64(k.BPFNode.off), spanOf(k.BPFStart, k.BPFEnd, field{off: k.BPFName.off, size: min(k.BPFName.size, 128)}))
		if err != nil {
			return err
		}
		name := printable(goString(r.bytes(k.BPFName, min(k.BPFName.size, 128))))
		t.code = append(t.code, code{r.uint(k.BPFStart), r.uint(k.BPFEnd), "eBPF " + name})
		return nil
	})
}

// ftrace is who is called by traced functions, and by what code.
func (k *linuxKernel) ftrace(t *tracing) {
	first, ok := k.sym["ftrace_ops_list"]
	if !ok || k.TraceFunc.size == 0 || k.TraceNext.size == 0 {
		return
	}
	ops, err := k.u64(first)
	for n := 0; err == nil && ops != 0 && ops != k.sym["ftrace_list_end"] && n < maxTracers; n++ {
		var to uint64
		if to, err = k.member(ops, k.TraceFunc); err != nil {
			return
		}
		t.handlers = append(t.handlers, handler{to: to, kind: "ftrace"})
		if start, err := k.member(ops, k.TraceCode); err == nil && k.TraceCode.size != 0 && start != 0 {
			if size, err := k.member(ops, k.TraceCodeSize); err == nil {
				t.code = append(t.code, code{start, start + size, "ftrace"})
			}
		}
		ops, err = k.member(ops, k.TraceNext)
	}
}

// probes are the kernel's probes of functions and of their returns.
func (k *linuxKernel) probes(t *tracing) {
	at, ok := k.sym["kprobe_table"]
	if !ok || k.ProbeAddr.size == 0 || k.ProbePre.size == 0 || k.ProbePost.size == 0 {
		return
	}
	for i := range uint64(probeSlots) {
		first, err := k.u64(at + 8*i)
		if err != nil {
			return
		}
		_ = k.hlist(first, maxTracers, func(probe uint64) (bool, error) { // hlist is the first member
			r, err := k.record(probe, spanOf(k.ProbeAddr, k.ProbePre, k.ProbePost))
			if err != nil {
				return false, err
			}
			for _, to := range []uint64{r.uint(k.ProbePre), r.uint(k.ProbePost)} {
				if to != 0 && len(t.handlers) < maxTracers {
					t.handlers = append(t.handlers, handler{to: to, at: r.uint(k.ProbeAddr), kind: "a kprobe"})
				}
			}
			if r.uint(k.ProbePre) == k.sym["pre_handler_kretprobe"] && k.ReturnHandler.size != 0 {
				to, err := k.member(probe, k.ReturnHandler)
				if err != nil {
					return false, err
				}
				t.handlers = append(t.handlers, handler{to: to, at: r.uint(k.ProbeAddr), kind: "a kretprobe"})
			}
			return true, nil
		})
	}
}

// whose says in whose code an address is.
func (t tracing) whose(va uint64) string {
	for _, c := range t.code {
		if va >= c.start && va < c.end {
			return "in " + c.whose
		}
	}
	return "in no listed module"
}

// probed names the probes at the beginning of the function at va; "" without any.
func (t tracing) probed(k *linuxKernel, va uint64) string {
	for _, h := range t.handlers {
		if h.at >= va && h.at < va+probeOffset {
			where := "in the kernel's text"
			if !k.inText(h.to) {
				where = t.whose(h.to)
			}
			return fmt.Sprintf(": %s, which calls %#x %s", h.kind, h.to, where)
		}
	}
	return ""
}

// handlerFindings are the handlers that lead out of the kernel: into a module,
// which may be a tool's, or to where nobody says there is code.
func (g *linuxGuest) handlerFindings(context.Context) ([]Finding, error) {
	if !g.k.moduleViews()[0].known {
		return []Finding{unchecked("what traces functions", "this kernel does not say where its modules are")}, nil
	}
	modules, err := g.k.listedModules()
	if err != nil {
		return nil, err
	}
	t := g.k.tracing(modules)
	out := make(map[string]Finding)
	for _, h := range t.handlers {
		if g.k.inText(h.to) {
			continue
		}
		f := Finding{Kind: HookedFunction, Severity: Low, Subject: "functions traced by ftrace"}
		if h.at != 0 {
			f.Subject = fmt.Sprintf("function at %#x", h.at)
		}
		whose := t.whose(h.to)
		if whose == (tracing{}).whose(h.to) {
			f.Severity = High
		}
		f.Evidence = fmt.Sprintf("%s calls %#x when it runs, %s", h.kind, h.to, whose)
		out[f.Subject+f.Evidence] = f
	}
	found := make([]Finding, 0, len(out))
	for _, f := range out {
		found = append(found, f)
	}
	slices.SortFunc(found, func(a, b Finding) int {
		return cmp.Or(cmp.Compare(a.Subject, b.Subject), cmp.Compare(a.Evidence, b.Evidence))
	})
	return found, nil
}
