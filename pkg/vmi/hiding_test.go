package vmi_test

import (
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vmgate/vmgate/pkg/vmi"
)

// drop takes a node out of a chain of sockets.
func (i infected) drop(t *testing.T, node uint64) {
	t.Helper()
	next, back := i.pointer(t, node), i.pointer(t, node+8)
	i.write(t, back, word(next))
	if next&1 == 0 && next != 0 {
		i.write(t, next+8, word(back))
	}
}

// Each way of hiding a process: what is found then, and whether its socket still
// leads to it.
func TestGuest_WaysOfHidingAProcess(t *testing.T) {
	f := guest(t)
	prey := f.begin(t, "prey", "plain:tcp4:0.0.0.0:8030") // it has threads
	plain := uint32(number(t, strings.TrimSpace(f.run(t, "nc -l -p 8033 >/dev/null 2>&1 </dev/null & echo $!; while ! grep -q :1F61 /proc/net/tcp*; do sleep 0.05; done"))))
	defer f.end(t, plain)
	type place = vmi.TaskPlaces
	tasks := func(i infected, p place) { i.unlink(t, p.Tasks) }
	tree := func(i infected, p place) { i.unlink(t, p.Sibling) }
	first := func(i infected, p place) { i.write(t, p.First, word(0)) }
	idr := func(i infected, p place) { i.write(t, p.IDRSlot, word(0)) }
	pid := func(i infected, p place) { i.write(t, p.PID, word(0)[:4]); i.write(t, p.TGID, word(0)[:4]) }
	number := func(i infected, p place) { i.write(t, p.Number, word(0)[:4]) }
	cache := func(i infected, p place) { i.write(t, p.PageCache, word(0)) }
	name := func(i infected, p place) { i.write(t, p.Comm, make([]byte, 16)) }
	elsewhere := func(i infected, p place) { i.write(t, p.First, word(p.OtherPIDLink)) }
	stranger := func(i infected, p place) { i.write(t, p.PID, word(77)[:4]); i.write(t, p.TGID, word(77)[:4]) }
	thread := func(i infected, p place) { i.write(t, p.TGID, word(1)[:4]) }
	for _, c := range []struct {
		name     string
		ways     []func(infected, place)
		kind     vmi.FindingKind
		severity vmi.Severity
		views    string // that the finding names
		hidden   bool
		pid      uint32 // that it has then
	}{
		{"from the list of tasks", []func(infected, place){tasks}, vmi.UnlinkedProcess, vmi.Medium, "pids tree slab", false, prey},
		{"from the tree", []func(infected, place){tree}, vmi.UnlinkedProcess, vmi.Medium, "tasks pids slab", false, prey},
		{"from its struct pid", []func(infected, place){first}, vmi.HiddenProcess, vmi.High, "tasks tree slab", true, prey},
		{"from the table of pids", []func(infected, place){idr}, vmi.HiddenProcess, vmi.High, "tasks tree slab", true, prey},
		{"its struct pid leads to another process", []func(infected, place){elsewhere}, vmi.HiddenProcess, vmi.High, "tasks tree slab", true, prey},
		{"from tasks and pids", []func(infected, place){tasks, first}, vmi.HiddenProcess, vmi.High, "tree slab", true, prey},
		{"from tasks, pids and tree", []func(infected, place){tasks, idr, tree}, vmi.HiddenProcess, vmi.High, "slab", true, prey},
		{"and without a name", []func(infected, place){tasks, idr, tree, name}, vmi.HiddenProcess, vmi.High, "slab", true, prey},
		{"its pid is 0", []func(infected, place){pid}, vmi.AlteredProcess, vmi.High, "tasks pids tree slab", false, prey},
		{"its pid is another", []func(infected, place){stranger}, vmi.AlteredProcess, vmi.High, "tasks pids tree slab", false, prey},
		{"it passes for a thread of another", []func(infected, place){thread}, vmi.AlteredProcess, vmi.High, "tasks pids tree slab", false, prey},
		{"from all lists, its pid is 0", []func(infected, place){tasks, first, tree, pid}, vmi.HiddenProcess, vmi.High, "slab", true, prey},
		{"and that of its struct pid", []func(infected, place){tasks, first, tree, pid, number}, vmi.HiddenProcess, vmi.High, "slab", true, 0},
		{"from everything but its threads", []func(infected, place){tasks, idr, tree, cache}, vmi.HiddenProcess, vmi.High, "slab", true, prey},
		{"from everything while it sleeps", []func(infected, place){tasks, idr, tree, cache}, vmi.OrphanSocket, vmi.Medium, "", false, plain},
	} {
		t.Run(c.name, func(t *testing.T) {
			i := infect(t)
			victim, port, program := prey, "8030", "/bin/agent"
			if c.pid == plain {
				victim, port, program = plain, "8033", "/bin/busybox"
			}
			at, err := vmi.TaskAt(t.Context(), i.os, victim)
			if err != nil {
				t.Fatal(err)
			}
			for _, way := range c.ways {
				way(i, at)
			}
			found := i.findings(t)
			if len(found) != 1 || found[0].Kind != c.kind || found[0].Severity != c.severity || strings.Join(found[0].Views, " ") != c.views || found[0].PID != c.pid && c.kind != vmi.OrphanSocket {
				t.Errorf("findings %+v; want one %s, %s, of %d in %s", found, c.kind, c.severity, c.pid, c.views)
			}
			a, err := i.os.Owners(t.Context(), vmi.Query{Proto: 6, Local: local(t, port)})
			if err != nil {
				t.Fatal(err)
			}
			if c.kind == vmi.OrphanSocket {
				if a.State != vmi.StateOrphan || len(a.Owners) != 0 {
					t.Errorf("owner of what nothing shows: %+v", a)
				}
				return
			}
			if len(a.Owners) != 1 || a.Owners[0].PID != c.pid || a.Owners[0].Hidden != c.hidden || a.Owners[0].Path != program {
				t.Errorf("owners %+v; want %d, hidden %v", a.Owners, c.pid, c.hidden)
			}
		})
	}
}

// Each way of hiding a socket that its process goes on holding.
func TestGuest_WaysOfHidingASocket(t *testing.T) {
	f := guest(t)
	pid := f.begin(t, "burrow", "plain:tcp4:127.0.0.1:8031 udp:udp4:127.0.0.1:8032 connect:tcp4:127.0.0.1:82")
	from := f.connectionOf(t, pid)
	listener := vmi.Query{Proto: 6, Local: local(t, "127.0.0.1:8031")}
	connection := vmi.Query{Proto: 6, Local: from, Remote: netip.MustParseAddrPort("127.0.0.1:82")}
	datagram := vmi.Query{Proto: 17, Local: local(t, "127.0.0.1:8032")}
	for _, c := range []struct {
		name    string
		query   vmi.Query
		ports   bool
		shown   bool
		subject string
		missing string
	}{
		{"a listener from the ports", listener, true, false, "socket 127.0.0.1:8031 of protocol 6 (listen)", "the table of ports"},
		{"a listener from the listeners", listener, false, true, "socket 127.0.0.1:8031 of protocol 6 (listen)", "the table of listeners"},
		{"a connection from the ports", connection, true, false, "socket " + from.String() + " of protocol 6 (established)", "the table of ports"},
		{"a connection from the connections", connection, false, true, "socket " + from.String() + " of protocol 6 (established)", "the table of connections"},
		{"a connection from both", connection, true, true, "socket " + from.String() + " of protocol 6 (established)", "the table of ports and the table of connections"},
		{"a datagram socket", datagram, true, false, "socket 127.0.0.1:8032 of protocol 17 (close)", "the table of ports"},
	} {
		t.Run(c.name, func(t *testing.T) {
			i := infect(t)
			ports, shown, err := vmi.SocketAt(t.Context(), i.os, c.query)
			if err != nil {
				t.Fatal(err)
			}
			if c.ports {
				i.drop(t, ports)
			}
			if c.shown {
				i.drop(t, shown)
			}
			found := i.findings(t)
			one(t, found, vmi.HiddenSocket, vmi.High, c.subject, "missing from "+c.missing+",")
			if found[0].PID != pid {
				t.Errorf("held by %d, want %d", found[0].PID, pid)
			}
			a, err := i.os.Owners(t.Context(), c.query)
			if err != nil || !slices.Equal(pids(a.Owners), []uint32{pid}) || a.State != vmi.StateHeld || c.ports != strings.Contains(a.Note, "by its descriptor") {
				t.Errorf("%+v, %v", a, err)
			}
		})
	}
}

// What is in no list and in no slab is found when it runs, and then followed.
func TestGuest_HiddenFromAllButTheScheduler(t *testing.T) {
	f := guest(t)
	if err := f.hideSpinner(t); err != nil {
		t.Fatal(err)
	}
}

func (f *fixture) hideSpinner(t *testing.T) error {
	pid := uint32(number(t, strings.TrimSpace(f.run(t, "(while :; do :; done) >/dev/null 2>&1 & echo $!"))))
	defer f.end(t, pid)
	at, err := vmi.TaskAt(t.Context(), f.os, pid)
	if err != nil {
		return err
	}
	file, err := os.OpenFile(f.MemoryFile(), os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer file.Close()
	var undo []func()
	defer func() {
		for _, u := range slices.Backward(undo) {
			u()
		}
	}()
	set := func(va, value uint64) {
		t.Helper()
		phys, err := vmi.PhysOf(f.os, va)
		if err != nil {
			t.Fatal(err)
		}
		old, err := vmi.Pointer(f.os, va)
		if err != nil {
			t.Fatal(err)
		}
		store := func(v uint64) {
			if _, err := file.WriteAt(word(v), int64(f.fileOffset(t, phys))); err != nil {
				t.Error(err)
			}
		}
		undo = append(undo, func() { store(old) })
		store(value)
	}
	get := func(va uint64) uint64 {
		t.Helper()
		v, err := vmi.Pointer(f.os, va)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	for _, node := range []uint64{at.Tasks, at.Sibling} {
		next, prev := get(node), get(node+8)
		set(prev, next)
		set(next+8, prev)
	}
	set(at.First, 0)
	set(at.PageCache, 0)
	var found []vmi.Process
	for deadline := time.Now().Add(30 * time.Second); len(found) == 0 && time.Now().Before(deadline); {
		list, err := f.os.Processes(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range list {
			if p.Hidden {
				found = append(found, p)
			}
		}
	}
	if len(found) != 1 || found[0].PID != pid || strings.Join(found[0].Views, " ") != "running" {
		t.Errorf("hidden processes %+v, want %d seen running alone", found, pid)
	}
	return nil
}

// fileOffset is where guest-physical memory is in the guest's file.
func (f *fixture) fileOffset(t *testing.T, phys uint64) uint64 {
	t.Helper()
	info, err := os.Stat(f.MemoryFile())
	if err != nil {
		t.Fatal(err)
	}
	layout, err := vmi.LayoutFor(f.machine, uint64(info.Size()))
	if err != nil {
		t.Fatal(err)
	}
	off, _, ok := layout.Offset(phys)
	if !ok {
		t.Fatalf("no RAM at %#x", phys)
	}
	return off
}
