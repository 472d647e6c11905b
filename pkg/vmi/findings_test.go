package vmi_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vmgate/vmgate/pkg/vmi"
	"github.com/vmgate/vmgate/pkg/vmi/vmitest"
)

// infected is a copy of the shared guest's memory that a test plays rootkit in.
type infected struct {
	file *os.File
	os   vmi.Guest
}

func infect(t *testing.T) infected {
	t.Helper()
	path := snapshot(t)
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	mem, err := vmi.OpenFile(path, "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = mem.Close(); _ = file.Close() })
	g, err := vmi.Open(t.Context(), mem, vmi.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return infected{file, g}
}

// write stores bytes at a kernel address. Guests are small here: what is at a
// physical address is there in the file.
func (i infected) write(t *testing.T, va uint64, b []byte) {
	t.Helper()
	phys, err := vmi.PhysOf(i.os, va)
	if err == nil {
		_, err = i.file.WriteAt(b, int64(phys))
	}
	if err != nil {
		t.Fatal(err)
	}
}

func (i infected) pointer(t *testing.T, va uint64) uint64 {
	t.Helper()
	v, err := vmi.Pointer(i.os, va)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func word(v uint64) []byte { return binary.LittleEndian.AppendUint64(nil, v) }

// unlink takes a node out of its list.
func (i infected) unlink(t *testing.T, node uint64) {
	t.Helper()
	next, prev := i.pointer(t, node), i.pointer(t, node+8)
	i.write(t, prev, word(next))
	i.write(t, next+8, word(prev))
}

func (i infected) findings(t *testing.T) []vmi.Finding {
	t.Helper()
	return findings(t, i.os)
}

func findings(t *testing.T, g vmi.Guest) []vmi.Finding {
	t.Helper()
	begin := time.Now()
	found, err := g.Findings(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d findings in %v", len(found), time.Since(begin))
	return found
}

// one expects exactly one finding.
func one(t *testing.T, found []vmi.Finding, kind vmi.FindingKind, severity vmi.Severity, subject string, evidence ...string) {
	t.Helper()
	if len(found) != 1 || found[0].Kind != kind || found[0].Severity != severity || found[0].Subject != subject {
		t.Fatalf("findings %+v; want one %s, %s: %s", found, kind, severity, subject)
	}
	for _, e := range evidence {
		if !strings.Contains(found[0].Evidence, e) {
			t.Errorf("evidence %q does not say %q", found[0].Evidence, e)
		}
	}
}

func TestGuest_FindingsOfAHealthyGuest(t *testing.T) {
	if found := findings(t, guest(t).os); len(found) != 0 {
		t.Errorf("%+v", found)
	}
}

func TestGuest_FindingsHiddenProcess(t *testing.T) {
	f := guest(t)
	pid := f.agent["dull"]
	if err := vmitest.Hide(f.MemoryFile(), "", pid); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := vmitest.Unhide(f.MemoryFile(), "", pid); err != nil {
			t.Error(err)
		}
	}()
	found := findings(t, f.os)
	one(t, found, vmi.HiddenProcess, vmi.High, "process "+itoa(pid)+" (agent)", "missing from tasks, pids", "3 samples")
	if found[0].PID != pid || !slices.Equal(found[0].Views, []string{"tree", "slab"}) {
		t.Errorf("%+v", found[0])
	}
}

func TestGuest_FindingsHiddenModule(t *testing.T) {
	const name = "virtio_net"
	for _, c := range []struct {
		views         string
		sysfs, noTree bool
	}{
		{views: "tree, sysfs, memory"},
		{views: "tree, memory", sysfs: true},
		{views: "memory", sysfs: true, noTree: true},
	} {
		t.Run("seen in "+c.views, func(t *testing.T) {
			i := infect(t)
			list, sysfs, tree, err := vmi.ModuleAt(i.os, name)
			if err != nil {
				t.Fatal(err)
			}
			i.unlink(t, list)
			if c.sysfs {
				i.unlink(t, sysfs)
			}
			if c.noTree {
				i.write(t, tree, word(0))
			}
			one(t, i.findings(t), vmi.HiddenModule, vmi.High, "module "+name, "seen in "+c.views+",")
			modules, err := i.os.Modules(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range modules {
				if hides := m.Name == name; m.Hidden != hides || hides && strings.Join(m.Views, ", ") != c.views || !hides && m.Views[0] != "list" {
					t.Errorf("listed as %+v", m)
				}
			}
		})
	}
}

func TestGuest_ModulesAreThoseOfLsmod(t *testing.T) {
	f := guest(t)
	want := make(map[string]string)
	for line := range strings.Lines(f.run(t, "cat /proc/modules")) {
		w := strings.Fields(line)
		want[w[0]] = strings.ToLower(w[4]) + " " + w[5]
	}
	modules, err := f.os.Modules(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	got := make(map[string]string)
	for _, m := range modules {
		got[m.Name] = fmt.Sprintf("%s %#016x", m.State, m.Base)
		if len(m.Views) != 4 || m.Hidden || m.Size == 0 {
			t.Errorf("%+v", m)
		}
	}
	if !maps.Equal(got, want) || len(want) == 0 {
		t.Errorf("modules %v, want %v", got, want)
	}
}

func TestGuest_FindingsOrphanSocket(t *testing.T) {
	i := infect(t)
	fds, err := vmi.DescriptorsAt(t.Context(), i.os, vmi.Query{Proto: 17, Local: local(t, "91")})
	if err != nil || len(fds) < 2 {
		t.Fatalf("descriptors %#x, %v", fds, err)
	}
	for _, fd := range fds[1:] {
		i.write(t, fd, word(0))
	}
	if found := i.findings(t); len(found) != 0 {
		t.Errorf("one holder is left: %+v", found)
	}
	i.write(t, fds[0], word(0))
	one(t, i.findings(t), vmi.OrphanSocket, vmi.Medium, "socket 0.0.0.0:91 of protocol 17 (close)", "no process")
}

// Tracing begins functions with a call too, and is not convicted.
func TestGuest_FindingsTracing(t *testing.T) {
	f := guest(t)
	f.run(t, "mkdir -p /tmp/tr && { mount -t tracefs t /tmp/tr || true; }; cd /tmp/tr && echo tcp4_seq_show >set_ftrace_filter && echo function >current_tracer")
	defer f.run(t, "cd /tmp/tr && echo nop >current_tracer && echo >set_ftrace_filter")
	one(t, findings(t, f.os), vmi.HookedFunction, vmi.Low, "function tcp4_seq_show", "tracing")
	// But not when it calls code that nobody answers for.
	i := infect(t)
	at, err := vmi.TracerAt(i.os)
	if err != nil {
		t.Fatal(err)
	}
	i.write(t, at, word(0xfffffffffe000000))
	found := i.findings(t)
	if len(found) != 2 {
		t.Fatalf("findings %+v", found)
	}
	one(t, found[:1], vmi.HookedFunction, vmi.High, "functions traced by ftrace", "ftrace calls 0xfffffffffe000000", "in no listed module")
}

func TestGuest_FindingsProbe(t *testing.T) {
	f := guest(t)
	out := f.run(t, "mkdir -p /tmp/tr && { mount -t tracefs t /tmp/tr || true; }; cd /tmp/tr && [ -e kprobe_events ] && echo 'p:ours tcp4_seq_show' >kprobe_events && echo 1 >events/kprobes/ours/enable && echo set || true")
	if !strings.Contains(out, "set") {
		t.Skip("the guest's kernel has no kprobe events")
	}
	defer f.run(t, "cd /tmp/tr && echo 0 >events/kprobes/ours/enable; echo >kprobe_events")
	one(t, findings(t, f.os), vmi.HookedFunction, vmi.Low, "function tcp4_seq_show", "a kprobe, which calls", "in the kernel's text")
}

func TestGuest_FindingsProcFile(t *testing.T) {
	i := infect(t)
	for _, name := range []string{"tcp", "udp6", "packet"} {
		at, err := vmi.FileAt(t.Context(), i.os, name)
		if err != nil {
			t.Fatal(err)
		}
		was := i.pointer(t, at)
		i.write(t, at, word(was+32))
		one(t, i.findings(t), vmi.HookedTable, vmi.High, "file /proc/net/"+name, "_seq_ops at")
		i.write(t, at, word(was))
	}
}

// Processes, connections and modules come and go all the time; none of it is a
// finding.
func TestGuest_FindingsUnderLoad(t *testing.T) {
	f := guest(t)
	pid := strings.TrimSpace(f.run(t, "(while true; do true | true; nc -w 1 127.0.0.1 82 </dev/null; nc -w 1 127.0.0.1 4; done) >/dev/null 2>&1 & echo $!"))
	defer f.run(t, "kill -9 "+pid+"; n=0; while pidof nc >/dev/null && [ $n -lt 60 ]; do sleep 0.05; n=$((n+1)); done") // the others' guest is at rest
	answers, unstable := 0, 0
	for deadline := time.Now().Add(4 * time.Second); time.Now().Before(deadline); {
		found, err := f.os.Findings(t.Context())
		switch {
		case errors.Is(err, vmi.ErrUnstable):
			unstable++
			continue
		case err != nil:
			t.Fatal(err)
		}
		answers++
		for _, one := range found {
			t.Errorf("%+v", one)
		}
	}
	t.Logf("%d answers, %d of memory that would not hold still", answers, unstable)
	if answers <= unstable {
		t.Error("most looks failed")
	}
}

func TestGuest_FindingsHooks(t *testing.T) {
	// Of code that leads to the free end of the modules' area.
	const away = 0xfffffffffe000000
	rel := func(op byte) func(uint64) []byte {
		return func(va uint64) []byte {
			return binary.LittleEndian.AppendUint32([]byte{op}, uint32(away-(va+5)))
		}
	}
	for name, c := range map[string]struct {
		code     func(va uint64) []byte
		evidence string
	}{
		"call":          {rel(0xe8), "it calls 0xfffffffffe000000"},
		"jump":          {rel(0xe9), "it jumps to 0xfffffffffe000000"},
		"far jump":      {func(uint64) []byte { return append(append([]byte{0x48, 0xb8}, word(away)...), 0xff, 0xe0) }, "in no listed module"},
		"push and ret":  {func(uint64) []byte { return []byte{0x68, 0, 0, 0, 0xfe, 0xc3} }, "it jumps to 0xfffffffffe000000"},
		"a breakpoint":  {func(uint64) []byte { return []byte{0xcc} }, "a breakpoint"},
		"within itself": {func(uint64) []byte { return []byte{0xe8, 0, 0, 0, 0} }, "as tracing makes it"},
	} {
		t.Run(name, func(t *testing.T) {
			i := infect(t)
			_, va, err := vmi.SymbolAt(i.os, "tcp4_seq_show")
			if err != nil {
				t.Fatal(err)
			}
			if first := i.pointer(t, va); uint32(first) == 0xfa1e0ff3 {
				va += 4 // endbr64 stays where it is
			}
			i.write(t, va, c.code(va))
			one(t, i.findings(t), vmi.HookedFunction, vmi.Low, "function tcp4_seq_show", c.evidence)
		})
	}
	t.Run("system call", func(t *testing.T) {
		i := infect(t)
		_, va, err := vmi.SymbolAt(i.os, "sys_call_table")
		if err != nil {
			t.Fatal(err)
		}
		i.write(t, va+8*217, word(away))
		one(t, i.findings(t), vmi.HookedTable, vmi.High, "system call getdents64", "outside the kernel's text")
	})
	t.Run("system call that no listing needs", func(t *testing.T) {
		i := infect(t)
		_, va, err := vmi.SymbolAt(i.os, "sys_call_table")
		if err != nil {
			t.Fatal(err)
		}
		i.write(t, va+8*440, word(away))
		one(t, i.findings(t), vmi.HookedTable, vmi.High, "system call 440", "outside the kernel's text")
	})
	t.Run("function table", func(t *testing.T) {
		i := infect(t)
		_, va, err := vmi.SymbolAt(i.os, "tcp4_seq_ops")
		if err != nil {
			t.Fatal(err)
		}
		i.write(t, va+24, word(away)) // show is its fourth
		one(t, i.findings(t), vmi.HookedTable, vmi.High, "tcp4_seq_ops.show", "outside the kernel's text")
	})
}
