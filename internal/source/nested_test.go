package source_test

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/vmgate/vmgate/internal/lab"
	"github.com/vmgate/vmgate/pkg/vmi"
)

// The neighbour has as much RAM as a PCI device can show: a power of two.
const neighbourMiB = 128

// static builds gatewayd as it is shipped.
func static(t *testing.T) string {
	t.Helper()
	program := filepath.Join(t.TempDir(), "gatewayd")
	build := exec.CommandContext(t.Context(), "go", "build", "-trimpath", "-ldflags=-s -w", "-o", program, "github.com/vmgate/vmgate/cmd/gatewayd")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("cannot build gatewayd: %v\n%s", err, out)
	}
	return program
}

func start(t *testing.T, config lab.GuestConfig) *lab.Guest {
	t.Helper()
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
	return g
}

// gatewayVM is a virtual machine that has the memory of another as an ivshmem
// device and as an NVDIMM.
type gatewayVM struct {
	*lab.Guest
	neighbour *lab.Guest
	web       uint32 // the neighbour's process that holds port 80
}

func startGatewayVM(t *testing.T) *gatewayVM {
	t.Helper()
	if testing.Short() {
		t.Skip("-short: a guest takes seconds to boot")
	}
	if err := lab.GuestSupport(""); err != nil {
		t.Skip(err)
	}
	program := static(t)
	g := &gatewayVM{neighbour: start(t, lab.GuestConfig{Name: "neighbour", MemoryMiB: neighbourMiB})}
	p, err := g.neighbour.Start(t.Context(), "web", "serve", "-tcp", "80")
	if err != nil {
		t.Fatal(err)
	}
	g.web = uint32(p.PID())
	deadline := time.Now().Add(time.Minute)
	for out := ""; !strings.Contains(out, ":80 "); {
		if out, _, err = g.neighbour.Run(t.Context(), "netstat -tln"); err != nil || time.Now().After(deadline) {
			t.Fatalf("nobody listens: %v\n%s", err, out)
		}
	}
	memory := func(id string) string {
		return fmt.Sprintf("memory-backend-file,id=%s,size=%dM,mem-path=%s,share=on,readonly=on", id, neighbourMiB, g.neighbour.MemoryFile())
	}
	g.Guest = start(t, lab.GuestConfig{
		Name: "gateway", MemoryMiB: 512, Machine: "q35,nvdimm=on", Files: map[string]string{"/bin/gatewayd": program},
		QEMU: []string{
			"-m", "512M,slots=2,maxmem=4G",
			"-object", memory("bar"), "-device", "ivshmem-plain,memdev=bar",
			"-object", memory("dimm"), "-device", "nvdimm,memdev=dimm,unarmed=on",
		},
	})
	return g
}

// run runs a command line in the gateway and decodes what it prints, if into is
// not nil.
func (g *gatewayVM) run(t *testing.T, line string, into any) string {
	t.Helper()
	out, exit, err := g.Run(t.Context(), line)
	if err != nil || exit != 0 {
		t.Fatalf("%s: exit %d, %v\n%s\n%s", line, exit, err, out, g.Console()[max(0, len(g.Console())-2000):])
	}
	if into != nil {
		if err := json.Unmarshal([]byte(out), into); err != nil {
			t.Fatalf("%s: %v\n%s", line, err, out)
		}
	}
	return out
}

// A gateway that is a virtual machine itself looks into its neighbour, with
// nothing on the host but two more arguments for its own QEMU.
func TestGatewayVM_LooksIntoItsNeighbour(t *testing.T) {
	g := startGatewayVM(t)
	mem, err := vmi.OpenFile(g.neighbour.MemoryFile(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer mem.Close()
	guest, err := vmi.Open(t.Context(), mem, vmi.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for _, way := range []string{"ivshmem", "nvdimm"} {
		t.Run(way, func(t *testing.T) {
			var answer vmi.Answer
			look := fmt.Sprintf("gatewayd introspect --%s %dM -o json ", way, neighbourMiB)
			g.run(t, look+"owner tcp 80 2>&1", &answer)
			if len(answer.Owners) != 1 || answer.Owners[0].PID != g.web || answer.Owners[0].Name != "web" {
				t.Errorf("port 80 is held by %+v, want pid %d", answer.Owners, g.web)
			}
			t.Logf("first look-up: %v", answer.Took)
			var got []vmi.Process
			g.run(t, look+"ps 2>&1", &got)
			want, err := guest.Processes(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(stable(want), stable(got)); diff != "" || len(got) < 20 {
				t.Errorf("by the memory file (-) and by %s (+):\n%s", way, diff)
			}
			if out, exit, err := g.Run(t.Context(), fmt.Sprintf("gatewayd introspect --%s 64M ps 2>&1", way)); err != nil || exit != 5 || !strings.Contains(out, strconv.Itoa(neighbourMiB<<20)) && !strings.Contains(out, "there are others") {
				t.Errorf("a device of another size: exit %d, %v: %s", exit, err, out)
			}
		})
	}
	t.Run("writes are refused", func(t *testing.T) { g.writesAreRefused(t) })
}

// stable leaves out what comes, goes and changes its name.
func stable(list []vmi.Process) (out []string) {
	for _, p := range list {
		if !strings.HasPrefix(p.Name, "kworker/") {
			out = append(out, fmt.Sprint(p.PID, p.Start, p.Name, p.Path, p.Args))
		}
	}
	return out
}

// writesAreRefused writes to both devices by their physical addresses.
func (g *gatewayVM) writesAreRefused(t *testing.T) {
	const at = 16 << 20 // anywhere: what is written there is nothing that the neighbour would write
	mark := []byte{0x5a, 0xc3, 0xa5, 0x3c}
	file, err := os.Open(g.neighbour.MemoryFile())
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	read := func() []byte {
		b := make([]byte, len(mark))
		if _, err := file.ReadAt(b, at); err != nil {
			t.Fatal(err)
		}
		return b
	}
	bar := strings.Fields(g.run(t, "for d in /sys/bus/pci/devices/*; do [ $(cat $d/device) = 0x1110 ] && sed -n 3p $d/resource; done; true", nil))
	var table string
	if out, _, err := g.Run(t.Context(), "gatewayd introspect --nvdimm 64M ps 2>&1"); err == nil {
		_, table, _ = strings.Cut(out, "bytes at ")
	}
	if len(bar) != 3 || !strings.HasPrefix(table, "0x") {
		t.Fatalf("the devices are at %q and %q", bar, table)
	}
	for name, start := range map[string]string{"ivshmem": bar[0], "nvdimm": strings.TrimSpace(table)} {
		g.run(t, fmt.Sprintf("devmem $((%s + %d)) 32 0x3ca5c35a", start, at), nil)
		if slices.Equal(read(), mark) {
			t.Errorf("by %s the gateway has written to its neighbour's memory", name)
		}
	}
}
