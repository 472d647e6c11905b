package inspector

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vmgate/vmgate/internal/config"
	"github.com/vmgate/vmgate/internal/lab"
	"github.com/vmgate/vmgate/internal/source"
	"github.com/vmgate/vmgate/pkg/vmi"
	"github.com/vmgate/vmgate/pkg/vmi/qemu"
	"github.com/vmgate/vmgate/pkg/vmi/remote"
)

var discard = slog.New(slog.DiscardHandler)

// guest is nothing but another one than the others.
type guest struct {
	vmi.Guest
	number int
}

func (g *guest) OS() string { return fmt.Sprint("boot ", g.number) }

// A session is as long as a guest is the same, and a client sees its own only.
func TestInspector_Guest(t *testing.T) {
	boots := 0
	opener := func(context.Context) (*source.Opened, error) {
		boots++
		return &source.Opened{Guest: &guest{number: boots}, Same: func(context.Context) error { return nil }, Close: func() error { return nil }}, nil
	}
	app1 := source.NewKeeper("app1", opener, discard)
	never := source.NewKeeper("app2", func(context.Context) (*source.Opened, error) { return nil, vmi.ErrNotUnderstood }, discard)
	i := &Inspector{
		keepers:  map[string]*source.Keeper{"app1": app1, "app2": never},
		allowed:  map[string][]string{"gw1": {"app1", "app2"}, "gw2": {"app2"}},
		sessions: map[string]session{},
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{}, 2)
	for _, k := range i.keepers {
		go func() { k.Keep(ctx); done <- struct{}{} }()
	}
	defer func() { cancel(); <-done; <-done }()

	awaitOS := func(want string) (session string) {
		for deadline := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
			g, session, err := i.Guest("gw1", "app1")
			if err == nil && g.OS() == want {
				return session
			}
			if time.Now().After(deadline) {
				t.Fatalf("no %s: %v", want, err)
			}
		}
	}
	first := awaitOS("boot 1")
	if again := awaitOS("boot 1"); again != first || first == "" {
		t.Errorf("sessions %q and %q of one guest", first, again)
	}
	i.Changed("app1")
	if second := awaitOS("boot 2"); second == first {
		t.Error("another guest has the same session")
	}
	for _, c := range []struct {
		client, vm string
		want       error
	}{
		{"gw2", "app1", remote.ErrUnknownVM}, {"gw1", "app3", remote.ErrUnknownVM},
		{"gw3", "app1", remote.ErrUnknownVM}, {"gw1", "", remote.ErrUnknownVM},
	} {
		if _, _, err := i.Guest(c.client, c.vm); !errors.Is(err, c.want) {
			t.Errorf("%s of %s: %v", c.vm, c.client, err)
		}
	}
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		_, _, err := i.Guest("gw2", "app2")
		if errors.Is(err, vmi.ErrNotUnderstood) {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}

// pretend starts a process that calls itself a QEMU, as a user.
func pretend(t *testing.T, name string, uid uint32) {
	t.Helper()
	p := exec.Command("/bin/sh", "-c", "read line", "-name", "guest="+name)
	p.Args[0] = "qemu-system-x86_64"
	if uid != uint32(os.Getuid()) {
		p.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
	}
	stdin, err := p.StdinPipe()
	if err == nil {
		err = p.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = stdin.Close(); _ = p.Wait() })
}

func TestFinder_BelievesItsUsersOnly(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root: processes of other users")
	}
	cfg, err := config.ParseInspector("x", []byte("listen: :1\ncertificate: a\nkey: b\nclient-ca: c\nclients: [{name: g, vms: [v]}]\nusers: [root, no-such-user]"))
	if err != nil {
		t.Fatal(err)
	}
	f, err := newFinder(cfg)
	if err != nil {
		t.Fatal(err)
	}
	name := fmt.Sprintf("pretend%d", os.Getpid())
	expect := func(want string) {
		t.Helper()
		if mem, err := f.open(t.Context(), name); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, %v; want %q", mem, err, want)
		}
	}
	expect("no QEMU machine is called")
	pretend(t, name, 65534)
	expect("is of user 65534")
	pretend(t, name, 0)
	// The stranger's is not counted: what is wrong with root's is that it has no RAM.
	expect("it has no mapping of 134217728 bytes")
	pretend(t, name, 0)
	if _, err := newFinder(&config.InspectorConfig{Users: []string{"no-such-user"}}); err == nil {
		t.Error("a finder that believes nobody")
	}
	expect("2 QEMU machines are called")
}

// A machine that keeps its RAM to itself is found and opened, by its own ways only.
func TestFinder_OpensAMachine(t *testing.T) {
	if testing.Short() {
		t.Skip("-short: a guest takes seconds to boot")
	}
	if err := lab.GuestSupport(""); err != nil {
		t.Skip(err)
	}
	g, err := lab.StartGuest(t.Context(), lab.GuestConfig{Name: fmt.Sprintf("found%d", os.Getpid()), Backing: lab.Private, Monitor: true})
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	for _, way := range []qemu.Way{qemu.ByProcess, qemu.ByMonitor} {
		f := finder{uids: []uint32{uint32(os.Getuid())}, ways: []qemu.Way{way}}
		mem, err := f.open(t.Context(), g.Name())
		if err != nil {
			t.Errorf("by %s: %v", way, err)
			continue
		}
		page := make([]byte, 4096)
		if err := mem.ReadPhys(page, 1<<20); err != nil || mem.Same(t.Context()) != nil {
			t.Errorf("by %s: %v, %v", way, err, mem.Same(t.Context()))
		}
		if err := mem.Close(); err != nil {
			t.Error(err)
		}
	}
	f := finder{uids: []uint32{uint32(os.Getuid())}, ways: []qemu.Way{qemu.ByDescriptor, qemu.ByFile}}
	if _, err := f.open(t.Context(), g.Name()); err == nil || !strings.Contains(err.Error(), "no shared file") {
		t.Errorf("by ways that it does not have: %v", err)
	}
}

const restrictTest = "VMGATE_TEST_RESTRICT"

// The helper of the test below: it restricts itself, is executed anew, and tells.
func TestRestrictHelper(t *testing.T) {
	if os.Getenv(restrictTest) == "" {
		t.Skip("is run by TestRestrict")
	}
	if err := Restrict([]int{unix.CAP_DAC_READ_SEARCH}); err != nil {
		t.Fatal(err)
	}
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		t.Fatal(err)
	}
	for _, task := range tasks {
		status, err := os.ReadFile("/proc/self/task/" + task.Name() + "/status")
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(status)) {
			if strings.HasPrefix(line, "Cap") || strings.HasPrefix(line, "NoNewPrivs") {
				fmt.Print("told ", line)
			}
		}
	}
}

func TestRestrict(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root: capabilities to give up")
	}
	helper := exec.CommandContext(t.Context(), os.Args[0], "-test.run", "^TestRestrictHelper$", "-test.v")
	helper.Env = append(os.Environ(), restrictTest+"=1")
	out, err := helper.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	told := 0
	for line := range strings.Lines(string(out)) {
		key, value, ok := strings.Cut(strings.TrimPrefix(strings.TrimSpace(line), "told "), ":")
		if !ok || !strings.HasPrefix(line, "told ") {
			continue
		}
		told++
		want := "0000000000000004" // CAP_DAC_READ_SEARCH
		if key == "NoNewPrivs" {
			want = "1"
		}
		if strings.TrimSpace(value) != want {
			t.Errorf("%s is %s, want %s", key, value, want)
		}
	}
	if told < 12 {
		t.Errorf("it told too little:\n%s", out)
	}
}

func TestNeeded(t *testing.T) {
	for ways, want := range map[string]string{
		"file": "[2]", "descriptor": "[2 19]", "process": "[2 19]", "descriptor file process": "[2 19]", "monitor": "[2 1]",
	} {
		if got := fmt.Sprint(Needed(&config.InspectorConfig{Ways: strings.Fields(ways)})); got != want {
			t.Errorf("%s need %s, want %s", ways, got, want)
		}
	}
}
