package vmi_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vmgate/vmgate/internal/lab"
	"github.com/vmgate/vmgate/pkg/vmi"
)

// fixture is the one guest that all tests of this package share, and what its
// agents hold.
type fixture struct {
	*lab.Guest
	mem     vmi.Memory
	os      vmi.Guest
	agent   map[string]uint32 // pid by name
	program []byte            // the agent's file
	machine string            // as for vmi.OpenFile
	started atomic.Int64
}

var shared struct {
	once sync.Once
	f    *fixture
	err  error
}

func TestMain(m *testing.M) {
	code := m.Run()
	if shared.f != nil {
		_ = shared.f.mem.Close()
		if err := shared.f.Close(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			code = max(code, 1)
		}
	}
	os.Exit(code)
}

// agents are started in this order, each when the one before is ready.
var agents = []struct {
	name string
	does string
}{
	{"web", "listen:tcp4:0.0.0.0:80 plain:tcp6:[::1]:81 plain:tcp::82 udp:udp4:127.0.0.1:53 udp:udp6:[::1]:54 udp:udp::55"},
	{"cli", "connect:tcp4:127.0.0.1:80 connect:tcp6:[::1]:81 connect:tcp4:127.0.0.1:82 udpconn:udp4:127.0.0.1:53"},
	{"par", "plain:tcp4:0.0.0.0:90 udp:udp4:0.0.0.0:91 fork:kid sleep:dull"},
	{"icmp", "raw:ip4:icmp ping:udp4"},
	{"ns", "netns: plain:tcp4:0.0.0.0:99 udp:udp4:0.0.0.0:98"},
}

// guest boots the shared guest on first use.
func guest(t testing.TB) *fixture {
	t.Helper()
	if err := lab.GuestSupport(""); err != nil {
		t.Skip(err)
	}
	shared.once.Do(func() { shared.f, shared.err = boot() })
	if shared.err != nil {
		t.Fatal(shared.err)
	}
	return shared.f
}

func boot() (*fixture, error) {
	console := io.Discard
	if testing.Verbose() && os.Getenv(envCPUs) == "" {
		console = os.Stderr
	}
	f, err := bootAs(lab.GuestConfig{Name: "vmi", Console: console, CPUs: fromEnv(envCPUs), MemoryMiB: fromEnv(envMemory)})
	if err != nil {
		return nil, err
	}
	return f, f.open()
}

// sctpModules are loaded by the test of SCTP, if the kernel comes with them.
var sctpModules = []string{"libcrc32c", "udp_tunnel", "ip6_udp_tunnel", "sctp"}

func exists(file string) bool {
	_, err := os.Stat(file)
	return err == nil
}

// bootAs boots a guest and starts all agents in it.
func bootAs(config lab.GuestConfig) (f *fixture, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	defer cancel()
	dir, err := os.MkdirTemp("", "vmi-agent-")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	agent := filepath.Join(dir, "agent")
	build := exec.CommandContext(ctx, "go", "build", "-ldflags=-buildid=build/of/the/agent", "-o", agent, "./testdata/agent")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("cannot build the agent: %w\n%s", err, out)
	}
	config.Files = map[string]string{"/bin/agent": agent}
	for _, module := range sctpModules {
		if file := filepath.Join(cmp.Or(config.Kernel, lab.DefaultKernel()), "modules", module+".ko"); exists(file) {
			config.Files["/lib/"+module+".ko"] = file
		}
	}
	g, err := lab.StartGuest(ctx, config)
	if err != nil {
		return nil, err
	}
	f = &fixture{Guest: g, agent: make(map[string]uint32), machine: config.Machine}
	defer func() {
		if err != nil {
			err = errors.Join(err, g.Close())
		}
	}()
	if f.program, err = os.ReadFile(agent); err != nil {
		return nil, err
	}
	if _, _, err := g.Run(ctx, "ip link set lo up; echo 0 65535 >/proc/sys/net/ipv4/ping_group_range"); err != nil {
		return nil, err
	}
	for _, a := range agents {
		if f.agent[a.name], err = f.start(ctx, a.name, a.does); err != nil {
			return nil, err
		}
	}
	return f, f.findKids(ctx)
}

// open looks into the guest; on failure it is closed.
func (f *fixture) open() (err error) {
	defer func() {
		if err != nil {
			err = errors.Join(err, f.Close())
		}
	}()
	if f.mem, err = vmi.OpenFile(f.MemoryFile(), f.machine); err != nil {
		return err
	}
	if f.os, err = vmi.Open(context.Background(), f.mem, vmi.Options{}); err != nil {
		err = errors.Join(err, f.mem.Close())
	}
	return err
}

// fromEnv is a number from the environment, 0 if there is none.
func fromEnv(name string) int {
	n, _ := strconv.Atoi(os.Getenv(name))
	return n
}

// start runs an agent and waits until it holds its sockets.
func (f *fixture) start(ctx context.Context, name, does string) (uint32, error) {
	log := fmt.Sprintf("/tmp/%s-%d", name, f.started.Add(1)) // also where one name is started twice
	out, _, err := f.Run(ctx, fmt.Sprintf("agent %s %s >%s 2>&1 </dev/null & echo $!; while ! grep -q '^agent' %s; do sleep 0.05; done; cat %s >&2; grep '^agent failed' %s", name, does, log, log, log, log))
	if err != nil {
		return 0, err
	}
	pid, rest, _ := strings.Cut(out, "\n")
	if rest != "" {
		return 0, errors.New(rest)
	}
	n, err := strconv.ParseUint(pid, 10, 32)
	return uint32(n), err
}

// findKids learns the pids of agents that agents have started.
func (f *fixture) findKids(ctx context.Context) error {
	out, _, err := f.Run(ctx, `while [ $(grep -c ready /tmp/par-*) -lt 3 ]; do sleep 0.05; done
for p in /proc/[0-9]*; do echo ${p#/proc/} $(tr '\0' ' ' <$p/cmdline); done 2>/dev/null`)
	for line := range strings.Lines(out) {
		if w := strings.Fields(line); len(w) == 3 && w[1] == "/bin/agent" {
			pid, err := strconv.ParseUint(w[0], 10, 32)
			if err != nil {
				return err
			}
			f.agent[w[2]] = uint32(pid)
		}
	}
	if len(f.agent) != len(agents)+2 {
		return errors.Join(err, fmt.Errorf("agents are missing: %v in\n%s", f.agent, out))
	}
	return err
}

// run runs a command in the guest and returns its output.
func (f *fixture) run(t testing.TB, command string) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute) // also from deferred clean-ups
	defer cancel()
	out, _, err := f.Run(ctx, command)
	if err != nil {
		t.Fatal(err)
	}
	return out
}
