package vmi_test

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/vmgate/vmgate/internal/lab"
	"github.com/vmgate/vmgate/pkg/vmi"
)

// copyOf is a file with the shared guest's memory as it is now, changed by edit.
func copyOf(t *testing.T, edit func(ram []byte)) vmi.Memory {
	t.Helper()
	path := snapshot(t)
	ram, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	edit(ram)
	if err := os.WriteFile(path, ram, 0o600); err != nil {
		t.Fatal(err)
	}
	mem, err := vmi.OpenFile(path, "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = mem.Close() })
	return mem
}

// withoutSymbols destroys the symbol table, wherever it is.
func withoutSymbols(t *testing.T) func(ram []byte) {
	return func(ram []byte) {
		digits, wiped := []byte("0\x001\x002\x003\x004\x005\x006\x007\x008\x009\x00"), 0
		for at := bytes.Index(ram, digits); at >= 0; at = bytes.Index(ram, digits) {
			clear(ram[at&^4095 : at+len(digits)])
			wiped++
		}
		if wiped == 0 {
			t.Fatal("there is none")
		}
	}
}

// withoutTypes destroys the head of the type information.
func withoutTypes(t *testing.T) func(ram []byte) {
	phys, _, err := vmi.SymbolAt(guest(t).os, "__start_BTF")
	if err != nil {
		t.Fatal(err)
	}
	return func(ram []byte) { clear(ram[phys : phys+4096]) }
}

// typesFile is a file with the guest's type information.
func (f *fixture) typesFile(t *testing.T) string {
	t.Helper()
	from, start, err := vmi.SymbolAt(f.os, "__start_BTF")
	_, stop, err2 := vmi.SymbolAt(f.os, "__stop_BTF")
	if err = errors.Join(err, err2); err != nil {
		t.Fatal(err)
	}
	raw := make([]byte, stop-start)
	if err := f.mem.ReadPhys(raw, from); err != nil {
		t.Fatal(err)
	}
	return write(t, "btf", raw)
}

func write(t *testing.T, name string, content []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// symbolLine is a line of a System.map.
type symbolLine struct {
	va        uint64
	typ, name string
}

// systemMap asks the guest for its symbols, and counts them from where kernels
// are linked for.
func (f *fixture) systemMap(t *testing.T) []symbolLine {
	t.Helper()
	out := f.run(t, "grep -wE '"+strings.Join(vmi.WantedSymbols(), "|")+"' /proc/kallsyms | grep -v '\\['")
	var lines []symbolLine
	var text uint64
	for line := range strings.Lines(out) {
		w := strings.Fields(line)
		if len(w) != 3 {
			t.Fatalf("line %q", line)
		}
		va, err := strconv.ParseUint(w[0], 16, 64)
		if err != nil {
			t.Fatal(err)
		}
		if w[2] == "_stext" {
			text = va
		}
		lines = append(lines, symbolLine{va, w[1], w[2]})
	}
	if text == 0 {
		t.Fatalf("the guest does not tell its symbols:\n%s", out)
	}
	for i := range lines {
		if lines[i].va >= 0xffffffff80000000 { // others are of each processor's own data
			lines[i].va -= text - 0xffffffff81000000
		}
	}
	return lines
}

func writeMap(t *testing.T, lines []symbolLine) string {
	t.Helper()
	var b bytes.Buffer
	for _, l := range lines {
		fmt.Fprintf(&b, "%016x %s %s\n", l.va, l.typ, l.name)
	}
	return write(t, "System.map", b.Bytes())
}

// expectAnswers compares what is said of a copy with what is said of the guest.
func (f *fixture) expectAnswers(t *testing.T, g vmi.Guest) {
	t.Helper()
	if g.OS() != f.os.OS() {
		t.Errorf("it is %s", g.OS())
	}
	for _, port := range []string{"80", "90", "99"} {
		a, err := g.Owners(t.Context(), vmi.Query{Proto: 6, Local: local(t, port)})
		want, err2 := f.os.Owners(t.Context(), vmi.Query{Proto: 6, Local: local(t, port)})
		if err := errors.Join(err, err2); err != nil {
			t.Fatal(err)
		}
		if diff := gocmp.Diff(want.Owners, a.Owners); diff != "" {
			t.Errorf("owners of port %s differ:\n%s", port, diff)
		}
	}
	if found, err := g.Findings(t.Context()); err != nil || len(found) > 0 {
		t.Errorf("findings: %+v, %v", found, err)
	}
}

// expectNotUnderstood opens a guest that cannot be, with a reason that has the words.
func expectNotUnderstood(t *testing.T, mem vmi.Memory, opt vmi.Options, words ...string) {
	t.Helper()
	g, err := vmi.Open(t.Context(), mem, opt)
	if err == nil {
		t.Errorf("it was opened: %s", g.OS())
		return
	}
	if !errors.Is(err, vmi.ErrNotUnderstood) && !errors.Is(err, vmi.ErrNotReady) {
		t.Error(err)
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("the reason does not say %q: %v", w, err)
		}
	}
}

func TestGuest_SystemMapInsteadOfSymbols(t *testing.T) {
	f := guest(t)
	mem := copyOf(t, withoutSymbols(t))
	expectNotUnderstood(t, mem, vmi.Options{}, "symbol")
	lines := f.systemMap(t)
	g, err := vmi.Open(t.Context(), mem, vmi.Options{SystemMap: writeMap(t, lines)})
	if err != nil {
		t.Fatal(err)
	}
	f.expectAnswers(t, g)
	expectNotUnderstood(t, mem, vmi.Options{SystemMap: "/nonexistent"}, "symbol", "no such file")
	expectNotUnderstood(t, mem, vmi.Options{SystemMap: write(t, "map", []byte("nonsense\n"))}, "line 1")
	expectNotUnderstood(t, mem, vmi.Options{SystemMap: write(t, "map", []byte("ffffffff81000000 T _stext\n"))}, "does not have linux_banner")
	// Of another build: what follows a function that is longer there is elsewhere.
	slices.SortFunc(lines, func(a, b symbolLine) int { return cmp.Compare(a.va, b.va) })
	first := slices.IndexFunc(lines, func(l symbolLine) bool { return l.name == "_stext" })
	for cut := first + 1; cut < len(lines); cut += 9 {
		other := slices.Clone(lines)
		for i := range other[cut:] {
			other[cut+i].va += 16
		}
		if g, err := vmi.Open(t.Context(), mem, vmi.Options{SystemMap: writeMap(t, other)}); err == nil {
			t.Errorf("opened by a System.map that is wrong from %s on: %s", other[cut].name, g.OS())
		}
	}
}

func TestGuest_SystemMapWithoutVMCoreInfo(t *testing.T) {
	f := guest(t)
	wipe := withoutSymbols(t)
	mem := copyOf(t, func(ram []byte) {
		wipe(ram)
		for page := 0; page < len(ram); page += 4096 {
			if bytes.HasPrefix(ram[page:], []byte("OSRELEASE=")) || bytes.HasPrefix(ram[page+12:], []byte("VMCOREINFO\x00")) {
				clear(ram[page : page+4096])
			}
		}
	})
	expectNotUnderstood(t, mem, vmi.Options{})
	g, err := vmi.Open(t.Context(), mem, vmi.Options{SystemMap: writeMap(t, f.systemMap(t))})
	if err != nil {
		t.Fatal(err)
	}
	f.expectAnswers(t, g)
}

func TestGuest_BTFFileInsteadOfItsOwn(t *testing.T) {
	f := guest(t)
	mem := copyOf(t, withoutTypes(t))
	expectNotUnderstood(t, mem, vmi.Options{}, "BTF")
	file := f.typesFile(t)
	g, err := vmi.Open(t.Context(), mem, vmi.Options{BTF: file})
	if err != nil {
		t.Fatal(err)
	}
	f.expectAnswers(t, g)
	expectNotUnderstood(t, mem, vmi.Options{BTF: "/nonexistent"}, "no such file")
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	expectNotUnderstood(t, mem, vmi.Options{BTF: write(t, "btf", raw[:len(raw)/2])}, "truncated")
	expectNotUnderstood(t, mem, vmi.Options{BTF: write(t, "btf", []byte("nonsense"))}, "malformed BTF")
	if _, err := os.Stat("/sys/kernel/btf/vmlinux"); err == nil {
		expectNotUnderstood(t, mem, vmi.Options{BTF: "/sys/kernel/btf/vmlinux"}, "BTF file /sys/kernel/btf/vmlinux")
	}
}

// Another kernel's types and symbols are refused.
func TestHelp_OfAnotherKernel(t *testing.T) {
	f := guest(t)
	kernel := kernelOf(t, "trixie", "6.12.")
	other, err := bootAs(lab.GuestConfig{Name: "other", Kernel: kernel})
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	if err := other.open(); err != nil {
		t.Fatal(err)
	}
	defer other.mem.Close()
	if f.os.OS() == other.os.OS() {
		t.Skip("the guest kernel is that of trixie, too")
	}
	symbols := writeMap(t, other.systemMap(t))
	expectNotUnderstood(t, copyOf(t, withoutSymbols(t)), vmi.Options{SystemMap: symbols}, "System.map")
	types := other.typesFile(t)
	expectNotUnderstood(t, copyOf(t, withoutTypes(t)), vmi.Options{BTF: types}, "BTF file")
	// Where none is needed, the wrong ones do no harm.
	g, err := vmi.Open(context.Background(), f.mem, vmi.Options{SystemMap: symbols, BTF: types})
	if err != nil {
		t.Fatal(err)
	}
	f.expectAnswers(t, g)
}

// A guest that writes other types where its own are is not understood. Two names
// of one length change places, so that all else of the types is well-formed.
func TestGuest_RewrittenBTF(t *testing.T) {
	f := guest(t)
	from, start, err := vmi.SymbolAt(f.os, "__start_BTF")
	_, stop, err2 := vmi.SymbolAt(f.os, "__stop_BTF")
	if err = errors.Join(err, err2); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct{ a, b, says string }{
		"a member of the first task": {"files", "utime", "files of its first task"},
		"the size of an object":      {"tcp_sock", "udp_sock", "its struct tcp_sock"},
	} {
		t.Run(name, func(t *testing.T) {
			mem := copyOf(t, func(ram []byte) {
				types := ram[from : from+stop-start]
				a, b := bytes.Index(types, []byte("\x00"+c.a+"\x00")), bytes.Index(types, []byte("\x00"+c.b+"\x00"))
				if a < 0 || b < 0 {
					t.Fatalf("no type or member is called %s or %s", c.a, c.b)
				}
				copy(types[a+1:], c.b)
				copy(types[b+1:], c.a)
			})
			expectNotUnderstood(t, mem, vmi.Options{}, "its own BTF does not fit it", c.says)
		})
	}
}
