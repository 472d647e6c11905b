package qemu_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vmgate/vmgate/pkg/vmi"
	"github.com/vmgate/vmgate/pkg/vmi/qemu"
)

// A machine whose RAM is in two pieces, one for each NUMA node: the monitor tells
// where, the command line does not.
func TestOpen_NUMA(t *testing.T) {
	const program = "qemu-system-x86_64"
	if _, err := exec.LookPath(program); err != nil {
		t.Skip(program, " is not installed")
	}
	monitor := filepath.Join(t.TempDir(), "m")
	name := fmt.Sprintf("numa%d", os.Getpid())
	p := exec.Command(program, "-nodefaults", "-display", "none", "-S", "-name", name, "-machine", "q35", "-m", "96M", // never runs
		"-object", "memory-backend-memfd,id=a,size=64M", "-object", "memory-backend-memfd,id=b,size=32M",
		"-numa", "node,memdev=a", "-numa", "node,memdev=b", "-qmp", "unix:"+monitor+",server=on,wait=off")
	p.Stderr = os.Stderr
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = p.Process.Kill(); _ = p.Wait() }()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		if _, err := os.Stat(monitor); err == nil {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("QEMU makes no monitor")
		}
	}
	m, err := qemu.ByName(name)
	if err != nil {
		t.Fatal(err)
	}
	if m.Backing != qemu.Several {
		t.Errorf("found %+v", m)
	}
	if _, _, err := m.Open(t.Context(), "", qemu.ByProcess); err == nil || !strings.Contains(err.Error(), "name a monitor") {
		t.Errorf("without a monitor: %v", err)
	}
	mem := open(t, m, monitor, qemu.ByProcess)
	defer mem.Close()
	firmware := open(t, m, monitor, qemu.ByMonitor)
	defer firmware.Close()
	end := make([]byte, 8)
	if err := mem.ReadPhys(end, 96<<20-8); err != nil {
		t.Error(err)
	}
	if err := mem.ReadPhys(end, 96<<20-4); err == nil {
		t.Error("read beyond the end")
	}
	if err := mem.ReadPhys(make([]byte, 4096), 64<<20-2048); err != nil {
		t.Errorf("across the pieces: %v", err)
	}
	if ranges, err := firmware.Ranges(); err != nil || len(ranges) != 1 || ranges[0] != (vmi.Range{Start: 0, End: 96 << 20}) {
		t.Errorf("ranges %#x, %v", ranges, err)
	}
}
