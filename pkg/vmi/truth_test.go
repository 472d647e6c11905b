package vmi_test

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/vmgate/vmgate/internal/lab/truth"
	"github.com/vmgate/vmgate/pkg/vmi"
)

// truth asks the guest for its own view of itself.
func (f *fixture) truth(t *testing.T) truth.Truth {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	out, exit, err := f.Run(ctx, "workload truth")
	if err != nil || exit != 0 {
		t.Fatalf("the guest's own view: status %d, %v\n%s", exit, err, out)
	}
	var said truth.Truth
	if err := json.Unmarshal([]byte(out), &said); err != nil {
		t.Fatal(err)
	}
	return said
}

// sees is what both a guest and introspection say of it, by what must be equal.
type sees struct {
	processes map[string]bool
	sockets   map[string]bool
}

// expectTruth compares every process and every socket with what the guest says
// before and after. What it says both times must be found, and what is found it
// must say at least once.
func (f *fixture) expectTruth(t *testing.T) {
	t.Helper()
	before := f.truth(t)
	processes, err := f.os.Processes(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	sockets, err := f.os.Sockets(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	after := f.truth(t)
	for _, p := range processes {
		if p.Hidden || len(p.Views) < 4 {
			t.Errorf("%d %s: hidden %v, views %v", p.PID, p.Name, p.Hidden, p.Views)
		}
	}
	once, twice := seenIn(before, processes, sockets), seenIn(after, processes, sockets)
	got := found(processes, sockets, before.Holders, after.Holders)
	compare(t, "processes", once.processes, twice.processes, got.processes, 20)
	compare(t, "sockets", once.sockets, twice.sockets, got.sockets, 15)
}

func compare(t *testing.T, what string, before, after, got map[string]bool, least int) {
	t.Helper()
	want := make(map[string]bool)
	for s := range before {
		if after[s] || got[s] {
			want[s] = true
		}
	}
	for s := range after {
		if got[s] {
			want[s] = true
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s: the guest (-) and introspection (+) differ:\n%s", what, diff)
	}
	if len(got) < least {
		t.Errorf("only %d %s", len(got), what)
	}
}

// seenIn is what a guest says. A kernel thread's name is cut to what the kernel
// keeps in its task, to which it adds for /proc what the thread does.
func seenIn(said truth.Truth, processes []vmi.Process, sockets []vmi.Socket) sees {
	out := sees{make(map[string]bool), make(map[string]bool)}
	names := make(map[int]string)
	for _, p := range processes {
		names[int(p.PID)] = p.Name
	}
	for _, p := range said.Processes {
		if p.PID == said.Reader || p.PPID == said.Reader {
			continue
		}
		if kept := names[p.PID]; p.Kernel && strings.HasPrefix(p.Name, kept) && (len(kept) == 15 || strings.HasPrefix(kept, "kworker/")) {
			p.Name = kept
		}
		if p.Kernel {
			p.NetNS = 0 // we do not say it of those
		}
		out.processes[fmt.Sprintf("%d of %d since %d: %q %q %q uid %d kernel %v net %d", p.PID, p.PPID, p.Ticks, p.Name, p.Path, p.Args, p.UID, p.Kernel, p.NetNS)] = true
	}
	byEnds := make(map[string]vmi.Socket)
	for _, s := range sockets {
		byEnds[ends(s.Proto, s.Local.String(), s.Remote.String(), s.State)] = s
	}
	for _, s := range said.Sockets {
		key, proto := "", uint8(0)
		switch strings.TrimSuffix(s.Table, "6") {
		case "tcp":
			proto = 6
		case "udp":
			proto = 17
		case "icmp":
			proto = 1
		case "raw":
			proto = uint8(s.Local.Port())
			key = ends(proto, s.Local.Addr().String(), s.Remote.Addr().String(), tcpStates[s.State])
		}
		if key == "" {
			key = ends(proto, s.Local.String(), s.Remote.String(), tcpStates[s.State])
		}
		inode := s.Inode
		// The guest's table names the kernel's own socket of an MPTCP listener; we
		// name the one that processes hold.
		if ours, ok := byEnds[key]; ok && proto == 6 && len(said.Holders[inode]) == 0 && len(said.Holders[ours.Inode]) > 0 {
			inode = ours.Inode
		}
		out.sockets[fmt.Sprintf("%s inode %d pids %v", key, inode, said.Holders[inode])] = true
	}
	return out
}

// tcpStates are the numbers of include/net/tcp_states.h.
var tcpStates = [...]string{"", "established", "syn-sent", "syn-recv", "fin-wait-1", "fin-wait-2", "time-wait",
	"close", "close-wait", "last-ack", "listen", "closing", "syn-recv"}

func ends(proto uint8, local, remote, state string) string {
	return fmt.Sprintf("%d %s %s %s", proto, local, remote, state)
}

// found is what introspection says, in the same words. Short-lived processes
// that neither reading of the guest could show are left out.
func found(processes []vmi.Process, sockets []vmi.Socket, holders ...map[uint64][]int) sees {
	out := sees{make(map[string]bool), make(map[string]bool)}
	for _, p := range processes {
		out.processes[fmt.Sprintf("%d of %d since %d: %q %q %q uid %d kernel %v net %d", p.PID, p.PPID, p.Start/1e7, p.Name, p.Path, p.Args, p.UID, p.Kernel, p.NetNS)] = true
	}
	for _, s := range sockets {
		key := ""
		switch s.Proto {
		case 1, 6, 17, 58:
			key = ends(s.Proto, s.Local.String(), s.Remote.String(), s.State)
			if s.Proto == 1 && s.Local.Port() == 0 {
				key = ends(s.Proto, s.Local.Addr().String(), s.Remote.Addr().String(), s.State)
			}
		default:
			key = ends(s.Proto, s.Local.Addr().String(), s.Remote.Addr().String(), s.State)
		}
		pids := []int{}
		for _, pid := range s.PIDs {
			pids = append(pids, int(pid))
		}
		slices.Sort(pids)
		out.sockets[fmt.Sprintf("%s inode %d pids %v", key, s.Inode, pids)] = true
	}
	return out
}
