package lab

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

const qemu = "qemu-system-x86_64"

// GuestSupport says what is missing to run guests here, nil if nothing is.
// kernel is GuestConfig.Kernel.
func GuestSupport(kernel string) error {
	if kernel == "" {
		kernel = DefaultKernel()
	}
	var errs []error
	if _, err := exec.LookPath(qemu); err != nil {
		errs = append(errs, fmt.Errorf("%s is not installed", qemu))
	}
	for _, file := range []string{"vmlinuz", "busybox"} {
		if _, err := os.Stat(filepath.Join(kernel, file)); err != nil {
			errs = append(errs, fmt.Errorf("there is no guest %s in %s", file, kernel))
		}
	}
	if len(errs) == 0 {
		return nil
	}
	return fmt.Errorf("cannot run QEMU guests: %w (scripts/install-deps.sh gets what is missing)", errors.Join(errs...))
}

// Acceleration returns the accelerator that guests run with, kvm or tcg. The
// environment variable VMGATE_ACCEL overrides it.
func Acceleration() string {
	if chosen := os.Getenv("VMGATE_ACCEL"); chosen != "" {
		return chosen
	}
	if hasKVM() {
		return "kvm"
	}
	return "tcg"
}

// hasKVM asks more than whether /dev/kvm can be opened: there are machines
// where it makes virtual machines and then never runs them, because the
// processor has no virtualisation extension.
func hasKVM() bool {
	cpu, err := os.ReadFile("/proc/cpuinfo")
	if err != nil || !(bytes.Contains(cpu, []byte(" vmx ")) || bytes.Contains(cpu, []byte(" svm "))) {
		return false
	}
	kvm, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0)
	if err != nil {
		return false
	}
	defer kvm.Close()
	const getAPIVersion, createVM = 0xae00, 0xae01 // linux/kvm.h
	if version, err := unix.IoctlRetInt(int(kvm.Fd()), getAPIVersion); err != nil || version != 12 {
		return false
	}
	vm, err := unix.IoctlRetInt(int(kvm.Fd()), createVM)
	if err != nil {
		return false
	}
	unix.Close(vm)
	return true
}

// startQEMU runs QEMU on an operating system thread of its own: the kernel
// ties PR_SET_PDEATHSIG, which takes QEMU along should this process be killed,
// to the thread that forked.
func (g *Guest) startQEMU(config GuestConfig) error {
	cmd := exec.Command(qemu, qemuArguments(config, g.dir, g.memory)...)
	cmd.Stdout, cmd.Stderr = g.console, g.console
	cmd.ExtraFiles = tapFiles(config.NICs)
	// Its own process group: a Ctrl-C in the terminal is for us, who then close it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	started := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		if err == nil {
			g.pid, g.kill = cmd.Process.Pid, cmd.Process.Kill
		}
		started <- err
		if err == nil {
			g.exitErr = cmd.Wait()
			close(g.exited)
		}
	}()
	return <-started
}

// qemuArguments builds the command line. The tap files follow the three
// standard ones in the order of tapFiles.
func qemuArguments(config GuestConfig, dir, memory string) []string {
	// Without cmpxchg16b: QEMU 7.2 now and then returns garbage in the flags of
	// the one that the kernel's allocator lives on, under emulation.
	accel, cpu := Acceleration(), "qemu64,-cx16"
	if accel == "kvm" {
		cpu = "host"
	}
	if config.Features != "" {
		cpu += "," + config.Features
	}
	args := []string{
		"-nodefaults", "-no-user-config", "-display", "none",
		"-name", config.Name,
		"-accel", accel, "-cpu", cpu, "-smp", fmt.Sprint(config.CPUs),
		"-machine", config.Machine + ",memory-backend=ram,vmport=off",
		"-m", fmt.Sprintf("%dM", config.MemoryMiB),
		"-object", memoryBackend(config, memory),
		"-kernel", filepath.Join(config.Kernel, "vmlinuz"),
		"-initrd", filepath.Join(dir, "initrd"),
		"-append", "console=ttyS0 quiet panic=-1 rdinit=/init mitigations=off tsc=reliable no_timer_check init_on_alloc=0 edd=off " + config.Append,
		"-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console",
		"-chardev", "socket,id=control,path=" + filepath.Join(dir, "control"), "-serial", "chardev:control",
	}
	if !config.Reboots {
		args = append(args, "-no-reboot")
	}
	if config.Monitor {
		args = append(args, "-qmp", "unix:"+filepath.Join(dir, "monitor")+",server=on,wait=off")
	}
	args = append(args, config.QEMU...)
	fd := 3
	for i, nic := range config.NICs {
		device := fmt.Sprintf("virtio-net-pci,romfile=,mac=%s", nic.MAC)
		if nic.Tap != nil {
			args = append(args, "-netdev", fmt.Sprintf("tap,id=net%d,fd=%d,vhost=off", i, fd))
			device += fmt.Sprintf(",netdev=net%d", i)
			fd++
		}
		args = append(args, "-device", device)
	}
	return args
}

func memoryBackend(config GuestConfig, file string) string {
	kind, more := "file", ",share=on,mem-path="+file
	switch config.Backing {
	case MemFD:
		kind, more = "memfd", ""
	case Private:
		kind, more = "ram", ""
	}
	return fmt.Sprintf("memory-backend-%s,id=ram,size=%dM%s", kind, config.MemoryMiB, more)
}

func tapFiles(nics []NIC) []*os.File {
	var files []*os.File
	for _, nic := range nics {
		if nic.Tap != nil {
			files = append(files, nic.Tap)
		}
	}
	return files
}
