package vmi_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/vmgate/vmgate/pkg/vmi"
)

const testRAM = 3<<20 + 5*4096 // no other mapping is so large

func TestOpenProcess_ListsUsedMemoryOnly(t *testing.T) {
	ram, err := unix.Mmap(-1, 0, testRAM, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Munmap(ram)
	if err := unix.Madvise(ram, unix.MADV_NOHUGEPAGE); err != nil {
		t.Log(err) // a kernel without them
	}
	copy(ram[2*4096-2:], "some")
	address := uint64(uintptr(unsafe.Pointer(&ram[0])))
	m, err := vmi.OpenProcess(os.Getpid(), vmi.ProcessRAM{Address: address, Size: testRAM})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	ranges, err := m.Ranges()
	// OpenProcess has looked at the first page.
	if want := []vmi.Range{{Start: 0x0, End: 0x3000}}; err != nil || !slices.Equal(ranges, want) {
		t.Errorf("ranges %#x, %v; want %#x", ranges, err, want)
	}
	buf := make([]byte, 6)
	if err := m.ReadPhys(buf, 2*4096-3); err != nil || !bytes.Equal(buf, []byte("\x00some\x00")) {
		t.Errorf("%q, %v", buf, err)
	}
	if err := m.ReadPhys(buf, testRAM-3); err == nil {
		t.Error("read beyond the end")
	}
}

func TestOpenProcess_Errors(t *testing.T) {
	if _, err := vmi.OpenProcess(os.Getpid(), vmi.ProcessRAM{Size: 7 << 40}); err == nil || !strings.Contains(err.Error(), "no mapping of") {
		t.Errorf("%v", err)
	}
	if _, err := vmi.OpenProcess(os.Getpid(), vmi.ProcessRAM{Size: 4096, Address: 4096}); err == nil {
		t.Error("opened what is not mapped")
	}
	cmd := exec.Command("sleep", "60")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var from, to uint64
	maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", cmd.Process.Pid))
	if err == nil {
		_, err = fmt.Sscanf(string(maps), "%x-%x", &from, &to)
	}
	if err != nil {
		t.Fatal(err)
	}
	m, err := vmi.OpenProcess(cmd.Process.Pid, vmi.ProcessRAM{Address: from, Size: to - from})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	if err := m.ReadPhys(make([]byte, 8), 0); err == nil || !strings.Contains(err.Error(), "has ended") {
		t.Errorf("read of a dead process: %v", err)
	}
}

// monitor finds the QEMU that has the shared guest's memory.
func (f *fixture) monitor(t testing.TB) int {
	t.Helper()
	all, _ := filepath.Glob("/proc/[0-9]*/maps")
	for _, maps := range all {
		pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(maps)))
		if text, err := os.ReadFile(maps); err == nil && pid != os.Getpid() && bytes.Contains(text, []byte(f.MemoryFile())) {
			return pid
		}
	}
	t.Fatal("no process has the guest's memory")
	return 0
}

func (f *fixture) openMonitor(t testing.TB) vmi.Guest {
	t.Helper()
	info, err := os.Stat(f.MemoryFile())
	if err != nil {
		t.Fatal(err)
	}
	mem, err := vmi.OpenProcess(f.monitor(t), vmi.ProcessRAM{Size: uint64(info.Size())})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = mem.Close() })
	g, err := vmi.Open(t.Context(), mem, vmi.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func TestGuest_ThroughItsMonitorsProcess(t *testing.T) {
	f := guest(t)
	g := f.openMonitor(t)
	a, err := g.Owners(t.Context(), vmi.Query{Proto: 6, Local: local(t, "80")})
	if err != nil {
		t.Fatal(err)
	}
	f.checkOwners(t, a, []string{"web"})
	if found := findings(t, g); len(found) != 0 {
		t.Errorf("%+v", found)
	}
}

func TestGuest_ThroughItsMonitorsDescriptor(t *testing.T) {
	f := guest(t)
	fds, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", f.monitor(t)))
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range fds {
		if to, _ := os.Readlink(fd); to != f.MemoryFile() {
			continue
		}
		mem, err := vmi.OpenFile(fd, "")
		if err != nil {
			t.Fatal(err)
		}
		defer mem.Close()
		g, err := vmi.Open(t.Context(), mem, vmi.Options{})
		if err != nil {
			t.Fatal(err)
		}
		a, err := g.Owners(t.Context(), vmi.Query{Proto: 6, Local: local(t, "80")})
		if err != nil {
			t.Fatal(err)
		}
		f.checkOwners(t, a, []string{"web"})
		return
	}
	t.Skip("this QEMU keeps no descriptor of the memory file")
}

func BenchmarkOwners_WarmProcess(b *testing.B) {
	g := guest(b).openMonitor(b)
	for b.Loop() {
		if a, err := g.Owners(b.Context(), webPort); err != nil || len(a.Owners) != 1 {
			b.Fatalf("%+v, %v", a, err)
		}
	}
}
