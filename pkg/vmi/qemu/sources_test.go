package qemu_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/vmgate/vmgate/internal/lab"
	"github.com/vmgate/vmgate/pkg/vmi"
	"github.com/vmgate/vmgate/pkg/vmi/qemu"
	"github.com/vmgate/vmgate/pkg/vmi/qmp"
	"github.com/vmgate/vmgate/pkg/vmi/vmitest"
)

// boot starts a guest in which "web" listens on port 80.
func boot(t *testing.T, config lab.GuestConfig) (g *lab.Guest, web uint32) {
	t.Helper()
	if testing.Short() {
		t.Skip("-short: a guest takes seconds to boot")
	}
	if err := lab.GuestSupport(""); err != nil {
		t.Skip(err)
	}
	config.Name = fmt.Sprintf("%s%d", config.Name, os.Getpid())
	g, err := lab.StartGuest(t.Context(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := g.Close(); err != nil {
			t.Error(err)
		}
	})
	p, err := g.Start(t.Context(), "web", "serve", "-tcp", "80")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for {
		out, _, err := g.Run(ctx, "netstat -tln")
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(out, ":80 ") {
			return g, uint32(p.PID())
		}
	}
}

func find(t *testing.T, g *lab.Guest) qemu.Machine {
	t.Helper()
	m, err := qemu.ByName(g.Name())
	if err != nil {
		t.Fatal(err)
	}
	if m.PID != g.PID() {
		t.Fatalf("found process %d, want %d", m.PID, g.PID())
	}
	return m
}

// seen is what one way shows of a guest.
type seen struct {
	Processes []string
	Owner     uint32
}

func look(t *testing.T, mem vmi.Memory) seen {
	t.Helper()
	begin := time.Now()
	g, err := vmi.Open(t.Context(), mem, vmi.Options{})
	if err != nil {
		t.Fatal(err)
	}
	discovery := time.Since(begin)
	list, err := g.Processes(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var s seen
	for _, p := range list {
		if !strings.HasPrefix(p.Name, "kworker/") { // they come and go, and change their names
			s.Processes = append(s.Processes, fmt.Sprint(p.PID, " ", p.Start, " ", p.Name, " ", p.Path, p.Args, p.Views))
		}
	}
	begin = time.Now()
	a, err := g.Owners(t.Context(), vmi.Query{Proto: unix.IPPROTO_TCP, Local: netip.AddrPortFrom(netip.Addr{}, 80)})
	if err != nil || len(a.Owners) != 1 {
		t.Fatalf("owner of port 80: %+v, %v", a, err)
	}
	cold := time.Since(begin)
	times := time.Duration(0)
	for begin = time.Now(); times < 50 && time.Since(begin) < 300*time.Millisecond; times++ {
		if _, err := g.Owners(t.Context(), vmi.Query{Proto: unix.IPPROTO_TCP, Local: netip.AddrPortFrom(netip.Addr{}, 80)}); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("discovery %v, port to process: first %v, then %v", discovery, cold, time.Since(begin)/times)
	s.Owner = a.Owners[0].PID
	return s
}

// open opens a machine by one way only.
func open(t *testing.T, m qemu.Machine, monitor string, way qemu.Way) vmi.Memory {
	t.Helper()
	mem, by, err := m.Open(t.Context(), monitor, way)
	if err != nil {
		t.Fatal(err)
	}
	if by != way {
		t.Fatalf("opened by %s", by)
	}
	return mem
}

// Every way to a guest shows the same, and keeps the contract.
func TestOpen_AllWaysShowTheSame(t *testing.T) {
	g, web := boot(t, lab.GuestConfig{Name: "ways", Monitor: true})
	m := find(t, g)
	if want := (qemu.Machine{
		PID: g.PID(), Started: m.Started, UID: uint32(os.Getuid()), Name: g.Name(), Type: "q35", RAM: 128 << 20,
		Backing: qemu.SharedFile, File: g.MemoryFile(), Monitors: []string{g.Monitor()},
	}); cmp.Diff(want, m) != "" {
		t.Errorf("found otherwise (-want +got):\n%s", cmp.Diff(want, m))
	}
	reference, err := vmi.OpenFile(g.MemoryFile(), "q35")
	if err != nil {
		t.Fatal(err)
	}
	defer reference.Close()
	want := look(t, reference)
	if want.Owner != web || len(want.Processes) < 20 {
		t.Fatalf("the memory file shows %+v; port 80 is %d's", want, web)
	}
	// First: QEMU itself fills holes when its own memory is read, or it is told to.
	t.Run("no holes are filled", func(t *testing.T) { noHolesAreFilled(t, g, m) })
	for _, c := range []struct {
		name    string
		monitor string
		way     qemu.Way
	}{
		{"file", "", qemu.ByFile},
		{"descriptor", "", qemu.ByDescriptor},
		{"descriptor, asked of the monitor", g.Monitor(), qemu.ByDescriptor},
		{"process", "", qemu.ByProcess},
		{"process, asked of the monitor", g.Monitor(), qemu.ByProcess},
		{"monitor", g.Monitor(), qemu.ByMonitor},
	} {
		t.Run(c.name, func(t *testing.T) {
			mem := open(t, m, c.monitor, c.way)
			if diff := cmp.Diff(want, look(t, mem)); diff != "" {
				t.Errorf("by memory file (-) and this way (+):\n%s", diff)
			}
			if err := vmitest.SameMemory(reference, mem); err != nil {
				t.Error(err)
			}
			if err := vmitest.CheckMemory(mem); err != nil {
				t.Error(err)
			}
		})
	}
	t.Run("a busy monitor is said to be busy", func(t *testing.T) {
		first, err := qmp.Dial(t.Context(), g.Monitor())
		if err != nil {
			t.Fatal(err)
		}
		defer first.Close()
		if _, _, err := m.Open(t.Context(), g.Monitor(), qemu.ByMonitor); !errors.Is(err, qmp.ErrBusy) || !strings.Contains(err.Error(), "one client at a time") {
			t.Errorf("%v", err)
		}
	})
	t.Run("QEMU ends", func(t *testing.T) { qemuEnds(t, g, m) })
}

// noHolesAreFilled stops QEMU, so that whatever the file grows by is our doing.
func noHolesAreFilled(t *testing.T, g *lab.Guest, m qemu.Machine) {
	blocks := func() int64 {
		var st unix.Stat_t
		if err := unix.Stat(g.MemoryFile(), &st); err != nil {
			t.Fatal(err)
		}
		return st.Blocks
	}
	layout, err := vmi.LayoutFor("q35", m.RAM)
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(g.PID(), syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	defer syscall.Kill(g.PID(), syscall.SIGCONT)
	before := blocks()
	if before*512 > int64(m.RAM)*9/10 {
		t.Fatalf("the file has hardly any holes: %d blocks", before)
	}
	for _, way := range []qemu.Way{qemu.ByFile, qemu.ByDescriptor} {
		mem := open(t, m, "", way)
		for _, r := range layout.Ranges() { // not those that are populated: all
			for at := r.Start; at < r.End; at += 4096 {
				var word [8]byte
				if err := mem.ReadPhys(word[:], at); err != nil {
					t.Fatal(err)
				}
			}
		}
		if err := vmitest.CheckMemory(mem); err != nil {
			t.Error(err)
		}
		if after := blocks(); after != before {
			t.Errorf("by %s: the file has grown from %d to %d blocks", way, before, after)
		}
	}
}

// qemuEnds: what is left behind does not answer for the machine.
func qemuEnds(t *testing.T, g *lab.Guest, m qemu.Machine) {
	hold, err := m.Hold()
	if err != nil {
		t.Fatal(err)
	}
	defer hold.Release()
	if !hold.Alive() {
		t.Error("it is not alive")
	}
	byProcess, byMonitor := open(t, m, "", qemu.ByProcess), open(t, m, g.Monitor(), qemu.ByMonitor)
	defer byProcess.Close()
	defer byMonitor.Close()
	if err := g.Close(); err != nil {
		t.Fatal(err)
	}
	if hold.Alive() {
		t.Error("it is alive still")
	}
	for name, mem := range map[string]vmi.Memory{"process": byProcess, "monitor": byMonitor} {
		if err := mem.ReadPhys(make([]byte, 8), 0); err == nil {
			t.Errorf("by %s the memory of a machine that has ended can be read", name)
		}
	}
	if _, err := m.Hold(); err == nil {
		t.Error("a process that has ended can be held")
	}
	if _, err := qemu.ByName(g.Name()); !errors.Is(err, qemu.ErrNoMachine) {
		t.Errorf("%v", err)
	}
}

func TestOpen_MemFD(t *testing.T) {
	g, web := boot(t, lab.GuestConfig{Name: "memfd", Backing: lab.MemFD})
	m := find(t, g)
	if m.Backing != qemu.MemFD {
		t.Errorf("found %+v", m)
	}
	mem := open(t, m, "", qemu.ByDescriptor)
	if s := look(t, mem); s.Owner != web {
		t.Errorf("port 80 is %d's, want %d", s.Owner, web)
	}
	other := open(t, m, "", qemu.ByProcess)
	if err := vmitest.SameMemory(mem, other); err != nil {
		t.Error(err)
	}
	if err := errors.Join(vmitest.CheckMemory(mem), vmitest.CheckMemory(other)); err != nil {
		t.Error(err)
	}
	if _, _, err := m.Open(t.Context(), "", qemu.ByFile, qemu.ByMonitor); err == nil {
		t.Error("a memfd has been opened by its name, or a monitor that nobody named")
	}
}

// RAM that is split below 4 GiB, in QEMU's own memory.
func TestOpen_PrivateMemoryAboveFourGiB(t *testing.T) {
	g, web := boot(t, lab.GuestConfig{Name: "private", Backing: lab.Private, MemoryMiB: 2816, Monitor: true})
	m := find(t, g)
	if m.Backing != qemu.Private || m.RAM != 2816<<20 {
		t.Errorf("found %+v", m)
	}
	bySize := open(t, m, "", qemu.ByProcess)
	want := look(t, bySize)
	if want.Owner != web {
		t.Errorf("port 80 is %d's, want %d", want.Owner, web)
	}
	for _, way := range []qemu.Way{qemu.ByProcess, qemu.ByMonitor} {
		mem := open(t, m, g.Monitor(), way)
		if way != qemu.ByMonitor { // which takes a minute to search as much memory for a kernel
			if diff := cmp.Diff(want, look(t, mem)); diff != "" {
				t.Errorf("by %s:\n%s", way, diff)
			}
		}
		if err := vmitest.SameMemory(bySize, mem); err != nil {
			t.Errorf("by %s: %v", way, err)
		}
		high := make([]byte, 8)
		if err := errors.Join(mem.ReadPhys(high, 4<<30), mem.ReadPhys(high, 0x80000000-8)); err != nil {
			t.Errorf("by %s: %v", way, err)
		}
		for _, at := range []uint64{0x80000000, 0x80000000 - 4, 4<<30 + 768<<20} {
			if mem.ReadPhys(high, at) == nil {
				t.Errorf("by %s: there is RAM at %#x", way, at)
			}
		}
		if err := vmitest.CheckMemory(mem); err != nil {
			t.Errorf("by %s: %v", way, err)
		}
	}
	if _, _, err := m.Open(t.Context(), "", qemu.ByDescriptor); err == nil || !strings.Contains(err.Error(), "no shared file") {
		t.Errorf("by descriptor: %v", err)
	}
	_ = bySize.Close()
}

// Two machines of one name: one of them may be another user's, who would like to
// be taken for the other.
func TestByName_RefusesAFalseTwin(t *testing.T) {
	name := fmt.Sprintf("twin%d", os.Getpid())
	for i := range 2 {
		p := exec.Command("/bin/sh", "-c", "read line", "-name", "guest="+name)
		p.Args[0] = "/anywhere/qemu-system-x86_64"
		stdin, err := p.StdinPipe()
		if err == nil {
			err = p.Start()
		}
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = stdin.Close(); _ = p.Wait() })
		m, err := qemu.ByName(name)
		if i == 0 && (err != nil || m.PID != p.Process.Pid) {
			t.Errorf("%+v, %v; want process %d", m, err, p.Process.Pid)
		}
		if i == 1 && (err == nil || !strings.Contains(err.Error(), "2 QEMU machines")) {
			t.Errorf("%+v, %v", m, err)
		}
	}
}
