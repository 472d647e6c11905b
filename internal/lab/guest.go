package lab

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// bootTimeout ends a boot whose context has no earlier deadline. A guest is up
// in seconds; a hundred times that is a hang, even on a busy machine.
const bootTimeout = 4 * time.Minute

// GuestConfig describes one QEMU guest. The zero value of each field but Name
// is useful.
type GuestConfig struct {
	Name      string            // host name, and part of the names of its files
	MemoryMiB int               // default 128
	CPUs      int               // default 1
	Machine   string            // QEMU machine type: q35 (default) or pc
	Features  string            // more features of its processor: "+la57"
	NICs      []NIC             // its network cards, in order
	Kernel    string            // directory with vmlinuz, busybox (static) and modules/; default: the cache that scripts/install-deps.sh fills
	Workload  string            // static workload binary; default: built by BuildWorkload
	Append    string            // more words for the kernel's command line
	RAM       string            // file to have its memory in, which keeps what is there and stays after Close; default: one of its own
	Reboots   bool              // starts again when it resets itself, instead of ending
	Files     map[string]string // further files: path in the guest → path here
	Backing   Backing           // of its RAM; default a shared file
	Monitor   bool              // QEMU has a monitor, whose socket Guest.Monitor names
	QEMU      []string          // more arguments for QEMU
	Console   io.Writer         // copy of everything the guest says on its console; optional
	Log       *slog.Logger      // optional
}

// Backing is what keeps a guest's RAM.
type Backing string

// The kinds of backing.
const (
	SharedFile Backing = ""        // Guest.MemoryFile
	MemFD      Backing = "memfd"   // a shared file without a name
	Private    Backing = "private" // QEMU's own memory
)

// NIC is one virtio network card with its default offloads.
type NIC struct {
	MAC       net.HardwareAddr
	Tap       *os.File // open tap or macvtap queue, which stays the caller's; nil: the card has no link
	MTU       int      // 0: 1500
	Addresses []netip.Prefix
	Gateways  []netip.Addr // default routes, at most one a family
}

// Guest is a running QEMU guest. Close ends it. Its methods may be called
// concurrently.
type Guest struct {
	name    string
	dir     string // temporary files
	memory  string
	lent    bool // memory is the caller's
	console *console
	channel *channel
	pid     int // of QEMU
	kill    func() error
	exited  chan struct{} // closed when QEMU has ended; exitErr is set then
	exitErr error
	closing sync.Once
}

// StartGuest boots a guest and returns when its agent answers: its modules are
// loaded and its interfaces configured. On failure nothing is left behind, and
// the error carries the end of the console.
func StartGuest(ctx context.Context, config GuestConfig) (*Guest, error) {
	if err := GuestSupport(config.Kernel); err != nil {
		return nil, err
	}
	config = withDefaults(config)
	ctx, cancel := context.WithTimeout(ctx, bootTimeout)
	defer cancel()
	begin := time.Now()
	guest, err := launch(ctx, config)
	if err != nil {
		return nil, fmt.Errorf("cannot start guest %s: %w", config.Name, err)
	}
	config.Log.Debug("guest is up", "guest", config.Name, "ms", time.Since(begin).Milliseconds())
	return guest, nil
}

func withDefaults(config GuestConfig) GuestConfig {
	if config.MemoryMiB == 0 {
		config.MemoryMiB = 128
	}
	if config.CPUs == 0 {
		config.CPUs = 1
	}
	if config.Machine == "" {
		config.Machine = "q35"
	}
	if config.Kernel == "" {
		config.Kernel = DefaultKernel()
	}
	if config.Console == nil {
		config.Console = io.Discard
	}
	if config.Log == nil {
		config.Log = slog.New(slog.DiscardHandler)
	}
	return config
}

func launch(ctx context.Context, config GuestConfig) (_ *Guest, err error) {
	if config.Workload == "" {
		if config.Workload, err = BuildWorkload(ctx); err != nil {
			return nil, err
		}
	}
	dir, err := os.MkdirTemp("", Prefix()+"guest-")
	if err != nil {
		return nil, err
	}
	guest := &Guest{
		name: config.Name, dir: dir,
		memory:  filepath.Join("/dev/shm", Prefix()+config.Name+"-"+rand.Text()[:8]+".ram"),
		console: &console{copy: config.Console},
		exited:  make(chan struct{}),
	}
	if config.RAM != "" {
		guest.memory, guest.lent = config.RAM, true
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, guest.Close())
		}
	}()
	if err := writeInitramfs(filepath.Join(dir, "initrd"), config); err != nil {
		return nil, err
	}
	listener, err := net.Listen("unix", filepath.Join(dir, "control"))
	if err != nil {
		return nil, err
	}
	defer listener.Close()
	if err := guest.startQEMU(config); err != nil {
		return nil, err
	}
	return guest, guest.awaitAgent(ctx, listener, config.Log)
}

// awaitAgent takes QEMU's connection for the second serial port, and then the
// agent's first message.
func (g *Guest) awaitAgent(ctx context.Context, listener net.Listener, log *slog.Logger) error {
	stop := context.AfterFunc(ctx, func() { listener.Close() })
	defer stop()
	conn, err := acceptOrExit(listener, g.exited)
	if err != nil {
		return g.bootError(ctx, err)
	}
	g.channel = newChannel(conn, log.With("guest", g.name))
	select {
	case <-g.channel.hello:
	case <-g.channel.ended:
	case <-ctx.Done():
	}
	switch hello, ok := g.channel.greeting(); {
	case !ok:
		return g.bootError(ctx, errors.New("its agent never answered"))
	case hello.Error != "":
		return fmt.Errorf("its set-up failed: %s", hello.Error)
	}
	return nil
}

func acceptOrExit(listener net.Listener, exited <-chan struct{}) (net.Conn, error) {
	done := make(chan struct{})
	defer close(done)
	go func() {
		select {
		case <-exited:
			listener.Close()
		case <-done:
		}
	}()
	return listener.Accept()
}

func (g *Guest) bootError(ctx context.Context, err error) error {
	select {
	case <-g.exited:
		err = fmt.Errorf("QEMU ended: %w", errors.Join(g.exitErr, err))
	default:
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
	}
	return fmt.Errorf("%w; the end of its console:\n%s", err, tail(g.Console(), 2000))
}

func tail(text string, limit int) string {
	if len(text) > limit {
		return text[len(text)-limit:]
	}
	return text
}

// Name returns the guest's name.
func (g *Guest) Name() string { return g.name }

// PID returns the pid of the guest's QEMU.
func (g *Guest) PID() int { return g.pid }

// Monitor returns the socket of QEMU's monitor, if the guest was given one.
func (g *Guest) Monitor() string { return filepath.Join(g.dir, "monitor") }

// MemoryFile returns the path of the file that is the guest's RAM, if it is in a
// shared one: what is read there is the guest's memory as it is now, and what is written
// changes it. Close removes it, unless it was GuestConfig.RAM.
func (g *Guest) MemoryFile() string { return g.memory }

// Console returns what the guest has said on its console so far, at most the
// last 256 KiB: kernel messages, and the standard error of what it runs.
func (g *Guest) Console() string { return g.console.String() }

// Close kills the guest's QEMU, waits for it and removes its files. It may be
// called more than once.
func (g *Guest) Close() (err error) {
	g.closing.Do(func() {
		if g.kill != nil {
			if killErr := g.kill(); killErr != nil && !errors.Is(killErr, os.ErrProcessDone) {
				err = fmt.Errorf("cannot kill guest %s: %w", g.name, killErr)
			}
			<-g.exited
		}
		if g.channel != nil {
			g.channel.close()
		}
		if !g.lent {
			if removeErr := os.Remove(g.memory); removeErr != nil && !errors.Is(removeErr, os.ErrNotExist) {
				err = errors.Join(err, removeErr)
			}
		}
		err = errors.Join(err, os.RemoveAll(g.dir))
	})
	return err
}
