package vmi_test

import (
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/vmgate/vmgate/pkg/vmi"
)

// ask looks the owners up of what a guest sends from local to remote.
func (f *fixture) ask(t *testing.T, proto uint8, from, to string) vmi.Answer {
	t.Helper()
	q := vmi.Query{Proto: proto, Local: local(t, from)}
	if to != "" {
		q.Remote = netip.MustParseAddrPort(to)
	}
	a, err := f.os.Owners(t.Context(), q)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func pids(list []vmi.Process) []uint32 {
	var out []uint32
	for _, p := range list {
		out = append(out, p.PID)
	}
	return out
}

// begin starts an agent that the test ends.
func (f *fixture) begin(t *testing.T, name, does string) uint32 {
	t.Helper()
	pid, err := f.start(t.Context(), name, does)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.end(t, pid) })
	return pid
}

func (f *fixture) end(t *testing.T, pid uint32) {
	f.run(t, "kill -9 "+itoa(pid)+"; while [ -d /proc/"+itoa(pid)+" ]; do sleep 0.05; done")
}

func TestGuest_CandidatesForWhatNoSocketExplains(t *testing.T) {
	f := guest(t)
	if a := f.ask(t, 17, "127.0.0.1:4444", ""); !slices.Equal(pids(a.Candidates), []uint32{f.agent["icmp"]}) || a.State != vmi.StateNone {
		t.Errorf("a raw socket: %+v", a)
	}
	forger := f.begin(t, "forger", "packet:")
	want := []uint32{f.agent["icmp"], forger}
	slices.Sort(want)
	for _, c := range []struct {
		name, from, to string
		proto          uint8
		want           []uint32
	}{
		{"UDP", "127.0.0.1:4444", "", 17, want},
		{"TCP", "127.0.0.1:4444", "127.0.0.1:5555", 6, want},
		{"IPv6, which an IPv4 socket cannot send", "[::1]:4444", "", 6, []uint32{forger}},
		{"a protocol without ports", "0", "", 47, want},
		{"a port that is held for another connection", "127.0.0.1:53", "127.0.0.9:9", 17, nil},
	} {
		a := f.ask(t, c.proto, c.from, c.to)
		if !slices.Equal(pids(a.Candidates), c.want) || a.Untraced != 0 || len(c.want) > 0 && (len(a.Owners) != 0 || a.State != vmi.StateNone) {
			t.Errorf("%s: %+v; want candidates %v", c.name, a, c.want)
		}
		for _, p := range a.Candidates {
			if p.PID == forger && !strings.HasPrefix(p.Via, "packet socket, descriptor ") ||
				p.PID != forger && !strings.HasPrefix(p.Via, "raw socket of protocol 1, descriptor ") {
				t.Errorf("%s: candidate %d by %q", c.name, p.PID, p.Via)
			}
		}
	}
	socks, err := f.os.Sockets(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(socks, func(s vmi.Socket) bool { return s.Family == "packet" })
	if i < 0 || !slices.Equal(socks[i].PIDs, []uint32{forger}) || socks[i].NetNS == 0 {
		t.Errorf("the packet socket is not among %+v", socks)
	}
}

func TestGuest_ForgedFromAHeldPort(t *testing.T) {
	f := guest(t)
	forger := f.begin(t, "forger", "packet:")
	socks, err := f.os.Sockets(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(socks, func(s vmi.Socket) bool {
		return s.Proto == 6 && s.State == "established" && slices.Equal(s.PIDs, []uint32{f.agent["cli"]})
	})
	if i < 0 {
		t.Fatal("cli has no connection")
	}
	a := f.ask(t, 6, socks[i].Local.String(), "192.0.2.77:443")
	if a.State != vmi.StateElsewhere || len(a.Owners) != 0 || !slices.Contains(pids(a.Candidates), f.agent["cli"]) || !slices.Contains(pids(a.Candidates), forger) {
		t.Errorf("%+v", a)
	}
}

func TestGuest_StatesOfConnections(t *testing.T) {
	f := guest(t)
	f.run(t, "ip addr add 198.51.100.1/32 dev lo; ip route add 192.0.2.0/24 dev lo")
	defer f.run(t, "ip route del 192.0.2.0/24 dev lo; ip addr del 198.51.100.1/32 dev lo")
	both := []uint32{f.agent["par"], f.agent["kid"]}
	slices.Sort(both)

	if a := f.ask(t, 6, "198.51.100.1:90", "192.0.2.9:4001"); a.State != vmi.StateListening || !slices.Equal(pids(a.Owners), both) {
		t.Errorf("before it begins: %+v", a)
	}
	f.begin(t, "syn", "syn:192.0.2.9:4001,198.51.100.1:90")
	if a := f.ask(t, 6, "198.51.100.1:90", "192.0.2.9:4001"); a.State != vmi.StateHalfOpen || !slices.Equal(pids(a.Owners), both) || !strings.Contains(a.Note, "handshake") {
		t.Errorf("half open: %+v", a)
	}
	if a := f.ask(t, 6, "198.51.100.1:90", "192.0.2.9:4002"); a.State != vmi.StateListening {
		t.Errorf("another than the half-open one: %+v", a)
	}
	lazy := f.begin(t, "lazy", "lazy:127.0.0.1:8010")
	client := f.begin(t, "eager", "connect:tcp4:127.0.0.1:8010")
	from := f.connectionOf(t, client)
	if a := f.ask(t, 6, "127.0.0.1:8010", from.String()); a.State != vmi.StateUnaccepted || !slices.Equal(pids(a.Owners), []uint32{lazy}) {
		t.Errorf("not accepted yet: %+v", a)
	}
	if a := f.ask(t, 6, from.String(), "127.0.0.1:8010"); a.State != vmi.StateHeld || !slices.Equal(pids(a.Owners), []uint32{client}) {
		t.Errorf("its other end: %+v", a)
	}
}

// connectionOf is the local end of a process's one connection.
func (f *fixture) connectionOf(t *testing.T, pid uint32) netip.AddrPort {
	t.Helper()
	socks, err := f.os.Sockets(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range socks {
		if s.State == "established" && slices.Equal(s.PIDs, []uint32{pid}) {
			return s.Local
		}
	}
	t.Fatalf("%d has no connection", pid)
	return netip.AddrPort{}
}

func TestGuest_OneNetworkNamespace(t *testing.T) {
	f := guest(t)
	inner, outer := f.process(t, f.agent["ns"]).NetNS, f.process(t, f.agent["web"]).NetNS
	for _, c := range []struct {
		netns uint32
		port  string
		want  []uint32
	}{
		{inner, "99", []uint32{f.agent["ns"]}}, {outer, "99", nil},
		{inner, "82", nil}, {outer, "82", []uint32{f.agent["web"]}},
	} {
		a, err := f.os.Owners(t.Context(), vmi.Query{Proto: 6, Local: local(t, c.port), NetNS: c.netns})
		if err != nil || !slices.Equal(pids(a.Owners), c.want) {
			t.Errorf("port %s in namespace %d: %+v, %v; want %v", c.port, c.netns, a, err, c.want)
		}
		if c.netns == inner && len(a.Candidates) != 0 {
			t.Errorf("candidates from another namespace: %+v", a.Candidates)
		}
	}
	if _, err := f.os.Owners(t.Context(), vmi.Query{Proto: 6, Local: local(t, "82"), NetNS: 7}); !errors.Is(err, vmi.ErrNoNamespace) {
		t.Errorf("a namespace that does not exist: %v", err)
	}
}

func TestGuest_FilesOfAnIOUring(t *testing.T) {
	f := guest(t)
	pid := f.begin(t, "ring", "lazy:127.0.0.1:8020 uring:")
	for range 3 { // cached and not
		a := f.ask(t, 6, "127.0.0.1:8020", "")
		if a.State != vmi.StateHeld || !slices.Equal(pids(a.Owners), []uint32{pid}) || a.Owners[0].Via != "file 1 of its io_uring" {
			t.Fatalf("%+v", a)
		}
	}
	if p := f.socket(t, 6, 8020).PIDs; !slices.Equal(p, []uint32{pid}) {
		t.Errorf("listed with %v", p)
	}
	if found := findings(t, f.os); len(found) != 0 {
		t.Errorf("%+v", found)
	}
}

// socket is the one that the list has of a local port.
func (f *fixture) socket(t *testing.T, proto uint8, port uint16) vmi.Socket {
	t.Helper()
	socks, err := f.os.Sockets(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(socks, func(s vmi.Socket) bool { return s.Proto == proto && s.Local.Port() == port })
	if i < 0 {
		t.Fatalf("no socket of protocol %d has port %d", proto, port)
	}
	return socks[i]
}

func TestGuest_SocketInFlight(t *testing.T) {
	f := guest(t)
	pid := f.begin(t, "pilot", "lazy:127.0.0.1:8021 fly:")
	a := f.ask(t, 6, "127.0.0.1:8021", "")
	if a.State != vmi.StateInFlight || len(a.Owners) != 0 || !slices.Equal(pids(a.Candidates), []uint32{pid}) {
		t.Fatalf("%+v", a)
	}
	if via := a.Candidates[0].Via; !strings.Contains(via, "sent by") || !strings.Contains(via, "waits in") {
		t.Errorf("by %q", via)
	}
}

func TestGuest_SocketPassedOn(t *testing.T) {
	f := guest(t)
	f.run(t, "agent taker take:/tmp/pass.sock >/tmp/taker 2>&1 </dev/null & echo $! >/tmp/taker.pid")
	giver := f.begin(t, "giver", "lazy:127.0.0.1:8026 give:/tmp/pass.sock")
	taker := uint32(number(t, strings.TrimSpace(f.run(t, "while ! grep -q '^agent' /tmp/taker; do sleep 0.05; done; cat /tmp/taker.pid; rm /tmp/taker /tmp/taker.pid"))))
	defer f.end(t, taker)
	for range 2 {
		if a := f.ask(t, 6, "127.0.0.1:8026", ""); a.State != vmi.StateHeld || !slices.Equal(pids(a.Owners), []uint32{taker}) {
			t.Errorf("%+v; want %d, not %d", a, taker, giver)
		}
	}
}

func TestGuest_ICMPv6(t *testing.T) {
	f := guest(t)
	pid := f.begin(t, "icmp6", "raw6:ip6:ipv6-icmp")
	if a := f.ask(t, 58, "[::1]:0", ""); a.State != vmi.StateHeld || !slices.Equal(pids(a.Owners), []uint32{pid}) {
		t.Errorf("%+v; want %d", a, pid)
	}
	if a := f.ask(t, 17, "[::1]:4444", ""); !slices.Equal(pids(a.Candidates), []uint32{pid}) {
		t.Errorf("candidates for what comes from IPv6: %+v", a.Candidates)
	}
}

func TestGuest_UDPLite(t *testing.T) {
	f := guest(t)
	pid, err := f.start(t.Context(), "lite", "kind:136:2:127.0.0.1:8022")
	if err != nil && strings.Contains(err.Error(), "protocol not supported") {
		if a := f.ask(t, 136, "127.0.0.1:8022", ""); a.State != vmi.StateNone {
			t.Errorf("of a kernel without it: %+v", a)
		}
		return
	} else if err != nil {
		t.Fatal(err)
	}
	defer f.end(t, pid)
	if a := f.ask(t, 136, "127.0.0.1:8022", ""); a.State != vmi.StateHeld || !slices.Equal(pids(a.Owners), []uint32{pid}) {
		t.Errorf("%+v", a)
	}
	if s := f.socket(t, 136, 8022); !slices.Equal(s.PIDs, []uint32{pid}) || s.Unlisted {
		t.Errorf("%+v", s)
	}
}

func TestGuest_SCTP(t *testing.T) {
	f := guest(t)
	if a := f.ask(t, 132, "127.0.0.1:8023", ""); a.State != vmi.StateNone {
		t.Fatalf("before there is SCTP: %+v", a)
	}
	if !strings.Contains(f.run(t, "cd /lib; for m in "+strings.Join(sctpModules, " ")+"; do [ ! -e $m.ko ] || insmod $m.ko; done; cat /proc/modules"), "sctp") {
		t.Skip("the guest kernel comes without the module sctp (scripts/install-deps.sh and fetch-kernels.sh get it for new ones)")
	}
	one := f.begin(t, "sctp-one", "kind:132:1:127.0.0.1:8023")
	many := f.begin(t, "sctp-many", "kind:132:5:127.0.0.1:8024")
	for port, pid := range map[string]uint32{"8023": one, "8024": many} {
		if a := f.ask(t, 132, "127.0.0.1:"+port, "192.0.2.5:9"); a.State != vmi.StateHeld || !slices.Equal(pids(a.Owners), []uint32{pid}) {
			t.Errorf("port %s: %+v; want %d", port, a, pid)
		}
	}
	if a := f.ask(t, 132, "127.0.0.1:8025", ""); a.State != vmi.StateNone {
		t.Errorf("nobody's: %+v", a)
	}
	if s := f.socket(t, 132, 8023); !slices.Equal(s.PIDs, []uint32{one}) || s.Unlisted {
		t.Errorf("%+v", s)
	}
}
