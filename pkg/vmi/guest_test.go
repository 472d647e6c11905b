package vmi_test

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/vmgate/vmgate/pkg/vmi"
)

// psProcess is what a guest says of one of its processes.
type psProcess struct {
	PID, PPID uint32
	Name      string
	Ticks     uint64 // start time, in 1/100 s
}

// parseStat reads a line of /proc/PID/stat.
func parseStat(t *testing.T, line string) psProcess {
	t.Helper()
	head, tail, ok := cutLast(line, ") ")
	pid, name, ok2 := strings.Cut(head, " (")
	w := strings.Fields(tail)
	if !ok || !ok2 || len(w) < 20 {
		t.Fatalf("not a stat line: %q", line)
	}
	return psProcess{PID: uint32(number(t, pid)), PPID: uint32(number(t, w[1])), Name: name, Ticks: number(t, w[19])}
}

func cutLast(s, sep string) (before, after string, ok bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return s, "", false
	}
	return s[:i], s[i+len(sep):], true
}

func number(t *testing.T, s string) uint64 {
	t.Helper()
	n, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestGuest_ProcessesAreThoseOfItsOwnPS(t *testing.T) {
	f := guest(t)
	want := make(map[uint32]psProcess)
	for line := range strings.Lines(f.run(t, "cat /proc/[0-9]*/stat 2>/dev/null")) {
		p := parseStat(t, line)
		p.Name = p.Name[:min(len(p.Name), 15)] // those of kernel threads may be longer than comm
		want[p.PID] = p
	}
	list, err := f.os.Processes(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	got := make(map[uint32]psProcess)
	for _, p := range list {
		if lasting := slices.DeleteFunc(slices.Clone(p.Views), func(v string) bool { return v == "running" }); p.Hidden || len(lasting) != 4 {
			t.Errorf("%d %s: hidden %v, views %v", p.PID, p.Name, p.Hidden, p.Views)
		}
		got[p.PID] = psProcess{p.PID, p.PPID, p.Name, p.Start / 1e7}
	}
	// The shell that listed them, its cat, and kernel workers that came or were
	// renamed for their current work are not the same before and after.
	for _, m := range []map[uint32]psProcess{want, got} {
		maps.DeleteFunc(m, func(_ uint32, p psProcess) bool {
			return strings.HasPrefix(p.Name, "kworker/") || p.Name == "cat" || p.Name == "sh"
		})
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("ps (-) and introspection (+) differ:\n%s", diff)
	}
	if len(got) < 20 {
		t.Errorf("only %d processes", len(got))
	}
}

func TestGuest_ProcessDetails(t *testing.T) {
	f := guest(t)
	list, err := f.os.Processes(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(list, func(p vmi.Process) bool { return p.PID == f.agent["kid"] })
	if i < 0 {
		t.Fatal("kid is not listed")
	}
	p := list[i]
	if p.Path != "/bin/agent" || !slices.Equal(p.Args, []string{"/bin/agent", "kid"}) || p.PPID != f.agent["par"] || p.UID != 0 || p.Kernel {
		t.Errorf("kid: %+v", p)
	}
	if p.BuildID != "build/of/the/agent" {
		t.Errorf("kid's build id: %q", p.BuildID)
	}
	i = slices.IndexFunc(list, func(p vmi.Process) bool { return p.Name == "kthreadd" })
	if i < 0 || !list[i].Kernel || list[i].PID != 2 {
		t.Error("kthreadd is not a kernel thread with pid 2")
	}
}

// local is a query's local end from "address:port" or a bare port.
func local(t *testing.T, s string) netip.AddrPort {
	t.Helper()
	if port, err := strconv.ParseUint(s, 10, 16); err == nil {
		return netip.AddrPortFrom(netip.Addr{}, uint16(port))
	}
	return netip.MustParseAddrPort(s)
}

func TestGuest_Owners(t *testing.T) {
	f := guest(t)
	for _, c := range []struct {
		name   string
		proto  uint8
		local  string
		owners []string
	}{
		{"an MPTCP listener, as Go makes", 6, "192.0.2.1:80", []string{"web"}},
		{"an IPv6 listener", 6, "[::1]:81", []string{"web"}},
		{"a dual-stack listener by IPv4", 6, "127.0.0.1:82", []string{"web"}},
		{"a dual-stack listener by IPv6", 6, "[2001:db8::1]:82", []string{"web"}},
		{"no address given", 6, "82", []string{"web"}},
		{"a UDP socket", 17, "127.0.0.1:53", []string{"web"}},
		{"an IPv6 UDP socket", 17, "[::1]:54", []string{"web"}},
		{"a dual-stack UDP socket", 17, "127.0.0.1:55", []string{"web"}},
		{"a listener inherited by a child", 6, "0.0.0.0:90", []string{"par", "kid"}},
		{"a UDP socket inherited by a child", 17, "0.0.0.0:91", []string{"par", "kid"}},
		{"a raw socket", 1, "0", []string{"icmp"}},
		{"an unprivileged ICMP socket by its identifier", 1, "0.0.0.0:4242", []string{"icmp"}},
		{"a listener in another network namespace", 6, "0.0.0.0:99", []string{"ns"}},
		{"a UDP socket in another network namespace", 17, "0.0.0.0:98", []string{"ns"}},
		{"nobody, TCP", 6, "127.0.0.1:4444", nil},
		{"nobody, UDP", 17, "127.0.0.1:80", nil},
		{"nobody, SCTP", 132, "0", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			cached := false
			for range 5 {
				a, err := f.os.Owners(t.Context(), vmi.Query{Proto: c.proto, Local: local(t, c.local)})
				if err != nil {
					t.Fatal(err)
				}
				f.checkOwners(t, a, c.owners)
				cached = cached || a.Cached
			}
			if len(c.owners) > 0 && !cached {
				t.Error("none of five answers was from the cache")
			}
		})
	}
}

func (f *fixture) checkOwners(t *testing.T, a vmi.Answer, names []string) {
	t.Helper()
	var want []uint32
	for _, n := range names {
		want = append(want, f.agent[n])
	}
	slices.Sort(want)
	var got []uint32
	for _, p := range a.Owners {
		got = append(got, p.PID)
		if p.Name != "agent" || p.Start == 0 || p.Hidden || !slices.Contains(p.Views, "pids") {
			t.Errorf("owner %+v", p)
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("owners %v, want %v (%v)", got, want, names)
	}
	if state := map[bool]vmi.SocketState{true: vmi.StateHeld, false: vmi.StateNone}[len(names) > 0]; a.State != state && a.State != vmi.StateListening {
		t.Errorf("state %s, want %s", a.State, state)
	}
	if a.Verified == "" || a.ReadAt.IsZero() || a.Took <= 0 {
		t.Errorf("answer does not say how it was made: %+v", a)
	}
}

func TestGuest_ConnectionsBelongToTheirEnds(t *testing.T) {
	f := guest(t)
	socks, err := f.os.Sockets(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	for _, s := range socks {
		if s.State != "established" {
			continue
		}
		want := "cli"
		if s.Local.Port() >= 80 && s.Local.Port() <= 82 {
			want = "web"
		}
		a, err := f.os.Owners(t.Context(), vmi.Query{Proto: s.Proto, Local: s.Local, Remote: s.Remote})
		if err != nil {
			t.Fatal(err)
		}
		f.checkOwners(t, a, []string{want})
		if !slices.Equal(s.PIDs, []uint32{f.agent[want]}) {
			t.Errorf("%v → %v is held by %v, want %s", s.Local, s.Remote, s.PIDs, want)
		}
		seen++
	}
	if seen != 7 {
		t.Errorf("%d connections, want 3 with two ends each and one of UDP", seen)
	}
}

func TestGuest_NewConnectionIsItsListeners(t *testing.T) {
	f := guest(t)
	a, err := f.os.Owners(t.Context(), vmi.Query{
		Proto: 6, Local: netip.MustParseAddrPort("127.0.0.1:80"), Remote: netip.MustParseAddrPort("192.0.2.9:40000"),
	})
	if err != nil {
		t.Fatal(err)
	}
	f.checkOwners(t, a, []string{"web"})
}

// procNet reads the guest's own table of sockets: local, remote and inode.
func procNet(t *testing.T, text string) map[string]bool {
	t.Helper()
	out := make(map[string]bool)
	for line := range strings.Lines(text) {
		w := strings.Fields(line)
		if len(w) < 10 || w[0] == "sl" {
			continue
		}
		out[fmt.Sprintf("%s %s %s", procAddr(t, w[1]), procAddr(t, w[2]), w[9])] = true
	}
	return out
}

// procAddr decodes the kernel's notation: words in host order, in hex.
func procAddr(t *testing.T, s string) netip.AddrPort {
	t.Helper()
	addr, port, _ := strings.Cut(s, ":")
	raw, err := hex.DecodeString(addr)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i+4 <= len(raw); i += 4 {
		slices.Reverse(raw[i : i+4])
	}
	a, _ := netip.AddrFromSlice(raw)
	p, err := strconv.ParseUint(port, 16, 16)
	if err != nil {
		t.Fatal(err)
	}
	return netip.AddrPortFrom(a.Unmap(), uint16(p))
}

func TestGuest_SocketsAreThoseOfProcNet(t *testing.T) {
	f := guest(t)
	// Who closes first leaves a TIME_WAIT behind, which is nobody's.
	if _, err := f.start(t.Context(), "closer", "quit:tcp4:127.0.0.1:7002"); err != nil {
		t.Fatal(err)
	}
	f.run(t, "nc -w 2 127.0.0.1 7002 </dev/null")
	want := procNet(t, f.run(t, "cat /proc/net/tcp /proc/net/tcp6 /proc/net/udp /proc/net/udp6"))
	socks, err := f.os.Sockets(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	got := make(map[string]bool)
	waits := 0
	for _, s := range socks {
		if s.State == "time-wait" {
			waits++
			if a := f.ask(t, s.Proto, s.Local.String(), s.Remote.String()); a.State != vmi.StateTimeWait && a.State != vmi.StateNone {
				t.Errorf("owner of a TIME_WAIT: %+v", a) // none if it has just run out
			}
		}
		elsewhere := s.Local.Port() == 98 || s.Local.Port() == 99 // another network namespace
		if s.Proto == 6 && !elsewhere || s.Proto == 17 && !elsewhere {
			got[fmt.Sprintf("%s %s %d", s.Local, s.Remote, s.Inode)] = true
		}
	}
	// The guest's table names the kernel's own socket of an MPTCP listener (80);
	// we name the one that the process holds.
	for _, m := range []map[string]bool{want, got} {
		maps.DeleteFunc(m, func(s string, _ bool) bool { return strings.HasPrefix(s, "0.0.0.0:80 ") })
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("/proc/net (-) and introspection (+) differ:\n%s", diff)
	}
	if waits == 0 {
		t.Error("no TIME_WAIT was seen")
	}
}

func TestGuest_Alive(t *testing.T) {
	f := guest(t)
	pid, err := f.start(t.Context(), "brief", "plain:tcp4:127.0.0.1:8001")
	if err != nil {
		t.Fatal(err)
	}
	a, err := f.os.Owners(t.Context(), vmi.Query{Proto: 6, Local: local(t, "8001")})
	if err != nil || len(a.Owners) != 1 || a.Owners[0].PID != pid {
		t.Fatalf("owner of 8001: %+v, %v; want %d", a, err, pid)
	}
	start := a.Owners[0].Start
	expectAlive(t, f, pid, start, true)
	expectAlive(t, f, pid, start+1, false)
	f.run(t, fmt.Sprintf("kill -9 %d; while [ -d /proc/%d ]; do sleep 0.05; done", pid, pid))
	expectAlive(t, f, pid, start, false)
	if a, err = f.os.Owners(t.Context(), vmi.Query{Proto: 6, Local: local(t, "8001")}); err != nil || len(a.Owners) != 0 {
		t.Errorf("dead owner of 8001: %+v, %v", a, err)
	}
}

func expectAlive(t *testing.T, f *fixture, pid uint32, start uint64, want bool) {
	t.Helper()
	if got, err := f.os.Alive(t.Context(), pid, start); err != nil || got != want {
		t.Errorf("alive %d since %d: %v, %v; want %v", pid, start, got, err, want)
	}
}

func TestGuest_CancelledContext(t *testing.T) {
	f := guest(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := f.os.Owners(ctx, vmi.Query{Proto: 6, Local: local(t, "80")}); !errors.Is(err, context.Canceled) {
		t.Errorf("Owners: %v", err)
	}
	if _, err := f.os.Processes(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Processes: %v", err)
	}
	if _, err := vmi.Open(ctx, f.mem, vmi.Options{}); !errors.Is(err, context.Canceled) {
		t.Errorf("Open: %v", err)
	}
}

// The guest makes and ends processes and connections all the time; nobody may
// look hidden, and every answer must come.
func TestGuest_NothingHiddenUnderLoad(t *testing.T) {
	f := guest(t)
	pid := strings.TrimSpace(f.run(t, "(while true; do true | true; nc -w 1 127.0.0.1 4; done) >/dev/null 2>&1 & echo $!"))
	defer f.run(t, "kill -9 "+pid+"; n=0; while pidof nc >/dev/null && [ $n -lt 60 ]; do sleep 0.05; n=$((n+1)); done") // the others' guest is at rest
	unstable := 0
	for deadline := time.Now().Add(3 * time.Second); time.Now().Before(deadline); {
		list, err := f.os.Processes(t.Context())
		switch {
		case errors.Is(err, vmi.ErrUnstable):
			unstable++
		case err != nil:
			t.Fatal(err)
		}
		for _, p := range list {
			if p.Hidden {
				t.Errorf("%d %s: %s", p.PID, p.Name, p.HiddenWhy)
			}
		}
		a, err := f.os.Owners(t.Context(), vmi.Query{Proto: 6, Local: local(t, "127.0.0.1:81")})
		if err != nil {
			t.Error(err)
			continue
		}
		f.checkOwners(t, a, []string{"web"})
	}
	if unstable > 0 {
		t.Logf("%d unstable lists", unstable)
	}
}

func TestGuest_Lineage(t *testing.T) {
	f := guest(t)
	p := f.process(t, f.agent["kid"])
	var got []uint32
	for _, a := range p.Parents {
		got = append(got, a.PID)
		if a.Start == 0 || a.Start > p.Start || a.Name == "" {
			t.Errorf("ancestor %+v of a process since %d", a, p.Start)
		}
	}
	var want []uint32
	for pid := p.PID; pid != 1; {
		stat := parseStat(t, f.run(t, "cat /proc/"+itoa(pid)+"/stat"))
		want, pid = append(want, stat.PPID), stat.PPID
	}
	if !slices.Equal(got, want) || len(want) < 2 || want[0] != f.agent["par"] {
		t.Errorf("ancestors %v, want %v", got, want)
	}
}

func (f *fixture) process(t *testing.T, pid uint32) vmi.Process {
	t.Helper()
	list, err := f.os.Processes(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(list, func(p vmi.Process) bool { return p.PID == pid })
	if i < 0 {
		t.Fatalf("%d is not listed", pid)
	}
	return list[i]
}

func TestGuest_ContainerAndNetworkNamespace(t *testing.T) {
	f := guest(t)
	id := strings.Repeat("0123456789abcdef", 4)
	path := "/system.slice/docker-" + id + ".scope"
	pid := f.agent["ns"]
	before := f.process(t, pid)
	if before.Cgroup != "/" || before.Container != "" {
		t.Errorf("before it is in a container: %+v", before)
	}
	f.run(t, "mkdir -p /tmp/cg; mount -t cgroup2 c /tmp/cg; mkdir -p /tmp/cg"+path+"; echo "+itoa(pid)+" >/tmp/cg"+path+"/cgroup.procs")
	defer f.run(t, "echo "+itoa(pid)+" >/tmp/cg/cgroup.procs; umount /tmp/cg")
	p := f.process(t, pid)
	if p.Cgroup != path || p.Container != id {
		t.Errorf("cgroup %q, container %q; want %q", p.Cgroup, p.Container, path)
	}
	for _, pid := range []uint32{pid, f.agent["web"]} {
		link := strings.TrimSpace(f.run(t, "readlink /proc/"+itoa(pid)+"/ns/net"))
		if got := fmt.Sprintf("net:[%d]", f.process(t, pid).NetNS); got != link {
			t.Errorf("%d is in %s, want %s", pid, got, link)
		}
	}
	if a, err := f.os.Owners(t.Context(), vmi.Query{Proto: 6, Local: local(t, "99")}); err != nil || len(a.Owners) != 1 || a.Owners[0].Container != id {
		t.Errorf("owner in a container: %+v, %v", a, err)
	}
}

func TestGuest_ManyArguments(t *testing.T) {
	f := guest(t)
	f.run(t, "sh -c 'sleep 1000 & wait' sh $(seq 1000) >/dev/null 2>&1 & echo $! >/tmp/many.pid; while ! grep -q 1000 /proc/$!/cmdline; do sleep 0.05; done")
	pid := uint32(number(t, strings.TrimSpace(f.run(t, "cat /tmp/many.pid"))))
	defer f.run(t, "kill -9 "+itoa(pid))
	want := strings.Split(strings.TrimSuffix(f.run(t, "tr '\\0' '\\n' </proc/"+itoa(pid)+"/cmdline"), "\n"), "\n")
	p := f.process(t, pid)
	if diff := cmp.Diff(want, p.Args); diff != "" || len(want) != 1004 || p.ArgsCut {
		t.Errorf("%d arguments, cut %v:\n%s", len(p.Args), p.ArgsCut, diff)
	}
}
