package lab

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/cavaliergopher/cpio" // kept: the newc format and its padding are not ours to get wrong

	"github.com/vmgate/vmgate/internal/lab/control"
)

// modules that a guest loads, if its kernel has them as modules; the others are
// built in.
var modules = []string{
	"virtio_ring", "virtio", "virtio_pci_legacy_dev", "virtio_pci_modern_dev", "virtio_pci",
	"failover", "net_failover", "virtio_net",
}

// DefaultKernel returns the directory where scripts/install-deps.sh unpacks a
// guest kernel: build/guest below the top of the project, or what the
// environment variable VMGATE_GUEST_KERNEL names.
func DefaultKernel() string {
	if dir := os.Getenv("VMGATE_GUEST_KERNEL"); dir != "" {
		return dir
	}
	top, err := projectTop()
	if err != nil {
		return filepath.Join("build", "guest")
	}
	return filepath.Join(top, "build", "guest")
}

// projectTop finds the directory of go.mod at or above the working directory;
// tests run in their package's.
func projectTop() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir, nil
		}
		if dir == filepath.Dir(dir) {
			return "", errors.New("cannot find the project: no go.mod at or above the working directory")
		}
		dir = filepath.Dir(dir)
	}
}

// BuildWorkload builds the static workload program and returns its path,
// build/workload below the top of the project. Where there is no Go, one that
// was built before is taken.
func BuildWorkload(ctx context.Context) (string, error) {
	top, err := projectTop()
	if err != nil {
		return "", err
	}
	binary := filepath.Join(top, "build", "workload")
	compiler, err := exec.LookPath("go")
	if err != nil {
		if _, statErr := os.Stat(binary); statErr != nil {
			return "", fmt.Errorf("cannot build the workload program: %w", err)
		}
		return binary, nil
	}
	if err := os.MkdirAll(filepath.Dir(binary), 0o755); err != nil {
		return "", err
	}
	// Built aside and renamed: others may do the same at this moment.
	fresh := binary + "." + rand.Text()[:8]
	build := exec.CommandContext(ctx, compiler, "build", "-trimpath", "-ldflags=-s -w", "-o", fresh, "./internal/lab/workload")
	build.Dir = top
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("cannot build the workload program: %w\n%s", err, out)
	}
	return binary, os.Rename(fresh, binary)
}

// writeInitramfs packs a guest's whole file system: busybox, the workload
// program as init, the modules, and the guest's set-up.
func writeInitramfs(target string, config GuestConfig) (err error) {
	file, err := os.Create(target)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	archive := &archive{out: cpio.NewWriter(file), dirs: map[string]bool{"/": true}}
	for _, dir := range []string{"/dev", "/proc", "/sys", "/tmp", "/etc", "/bin", control.ProgramDir} {
		archive.directory(dir)
	}
	busybox := filepath.Join(config.Kernel, "busybox")
	applets, err := exec.Command(busybox, "--list").Output()
	if err != nil {
		return fmt.Errorf("cannot list busybox's applets: %w", err)
	}
	archive.copy("/bin/busybox", busybox)
	for _, applet := range strings.Fields(string(applets)) {
		if applet != "busybox" {
			archive.link("/bin/"+applet, "busybox")
		}
	}
	archive.copy(control.WorkloadPath, config.Workload)
	archive.link("/init", control.WorkloadPath)
	setup := guestSetup(config)
	for _, module := range setup.Modules {
		archive.copy(path.Join(control.ModulesDir, module), filepath.Join(config.Kernel, "modules", module))
	}
	text, err := json.Marshal(setup)
	if err != nil {
		return err
	}
	archive.file(control.SetupPath, 0o644, text)
	for inside, outside := range config.Files {
		archive.copy(inside, outside)
	}
	return archive.close()
}

func guestSetup(config GuestConfig) control.Setup {
	setup := control.Setup{Name: config.Name}
	for _, module := range modules {
		name := module + ".ko"
		if _, err := os.Stat(filepath.Join(config.Kernel, "modules", name)); err == nil {
			setup.Modules = append(setup.Modules, name)
		}
	}
	for _, nic := range config.NICs {
		setup.NICs = append(setup.NICs, control.NIC{
			MAC: nic.MAC.String(), MTU: nic.MTU,
			Addresses: slices.Clone(nic.Addresses), Gateways: slices.Clone(nic.Gateways),
		})
	}
	return setup
}

// archive writes a cpio archive; the first error sticks.
type archive struct {
	out  *cpio.Writer
	dirs map[string]bool
	err  error
}

// directory adds a directory and those above it, once.
func (a *archive) directory(name string) {
	if a.dirs[name] {
		return
	}
	a.directory(path.Dir(name))
	a.dirs[name] = true
	a.entry(&cpio.Header{Name: name[1:], Mode: cpio.TypeDir | 0o755, Links: 2}, nil)
}

func (a *archive) file(name string, mode cpio.FileMode, content []byte) {
	a.directory(path.Dir(name))
	a.entry(&cpio.Header{Name: name[1:], Mode: cpio.TypeReg | mode, Size: int64(len(content)), Links: 1}, content)
}

func (a *archive) copy(name, from string) {
	content, err := os.ReadFile(from)
	if err != nil && a.err == nil {
		a.err = err
	}
	a.file(path.Clean("/"+name), 0o755, content)
}

func (a *archive) link(name, target string) {
	a.directory(path.Dir(name))
	a.entry(&cpio.Header{Name: name[1:], Linkname: target, Mode: cpio.TypeSymlink | 0o777, Size: int64(len(target)), Links: 1}, []byte(target))
}

func (a *archive) entry(header *cpio.Header, content []byte) {
	if a.err != nil {
		return
	}
	if a.err = a.out.WriteHeader(header); a.err == nil {
		_, a.err = a.out.Write(content)
	}
}

func (a *archive) close() error {
	if a.err == nil {
		a.err = a.out.Close()
	}
	if a.err != nil {
		return fmt.Errorf("cannot write the initramfs: %w", a.err)
	}
	return nil
}
