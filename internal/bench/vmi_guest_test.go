package bench_test

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/vmgate/vmgate/internal/lab"
	"github.com/vmgate/vmgate/internal/lab/churn"
	"github.com/vmgate/vmgate/pkg/vmi"
)

// crowdMiB is the memory of guests that introspection is measured with.
const crowdMiB = 512

// crowdGuest is an emulated guest with as many idle processes and sockets as a
// busy server has.
type crowdGuest struct {
	*churn.Guest
	mem       vmi.Memory
	os        string
	processes int
	sockets   int
}

// newCrowd boots a guest and fills it; children is how many processes there are
// besides the kernel's and the lab's, with 18 sockets for each.
func newCrowd(b *testing.B, children int) *crowdGuest {
	b.Helper()
	if err := lab.GuestSupport(""); err != nil {
		b.Skip(err)
	}
	g, err := churn.Start(b.Context(), lab.GuestConfig{Name: fmt.Sprintf("crowd%d", children), MemoryMiB: crowdMiB})
	must(b, err)
	b.Cleanup(func() {
		if err := g.Close(); err != nil {
			b.Error(err)
		}
	})
	crowd, err := g.Start(b.Context(), "crowd", "crowd", "-processes", strconv.Itoa(children))
	must(b, err)
	line, err := crowd.WaitLine(b.Context(), func(string) bool { return true })
	must(b, err)
	var said struct{ Sockets int }
	must(b, json.Unmarshal([]byte(line), &said))
	c := &crowdGuest{Guest: g, sockets: said.Sockets}
	c.mem, err = vmi.OpenFile(g.MemoryFile(), "")
	must(b, err)
	b.Cleanup(func() { _ = c.mem.Close() })
	guest := c.open(b)
	list, err := guest.Processes(b.Context())
	must(b, err)
	c.os, c.processes = guest.OS(), len(list)
	return c
}

// open discovers the guest's kernel anew: nothing is remembered of before.
func (c *crowdGuest) open(b *testing.B) vmi.Guest {
	b.Helper()
	guest, err := vmi.Open(b.Context(), c.mem, vmi.Options{})
	must(b, err)
	return guest
}

// conditions are those of the guest.
func (c *crowdGuest) conditions(more map[string]any) map[string]any {
	all := map[string]any{
		"guest": c.os, "processes": c.processes, "sockets": c.sockets, "guest_mib": crowdMiB, "guest_cpus": 1, "accelerator": lab.Acceleration(),
	}
	for key, value := range more {
		all[key] = value
	}
	return all
}

// known are queries about sockets that one process each holds, spread over all.
func (c *crowdGuest) known(b *testing.B, guest vmi.Guest, n int) []owned {
	b.Helper()
	all, err := guest.Sockets(b.Context())
	must(b, err)
	var out []owned
	for i := 0; len(out) < n && i < len(all)*n; i++ {
		s := all[i*7919%len(all)] // a prime: not the order of the tables
		if len(s.PIDs) == 1 && s.Local.Port() != 0 && (s.Proto == 6 || s.Proto == 17) {
			out = append(out, owned{vmi.Query{Proto: s.Proto, Local: s.Local, Remote: s.Remote}, s.PIDs[0]})
		}
	}
	if len(out) < n {
		b.Fatalf("only %d sockets with one owner", len(out))
	}
	return out
}

// owned is a query and its answer.
type owned struct {
	vmi.Query
	pid uint32
}

// ask asks and compares.
func (o owned) ask(b *testing.B, guest vmi.Guest) vmi.Answer {
	query := o.Query
	if !query.Remote.IsValid() || query.Remote.Port() == 0 {
		query.Remote = netip.AddrPort{}
	}
	a, err := guest.Owners(b.Context(), query)
	if err != nil || len(a.Owners) != 1 || a.Owners[0].PID != o.pid {
		b.Fatalf("%+v is of %d: %+v, %v", query, o.pid, a, err)
	}
	return a
}

// monitor is the process that runs the guest: the one that has its memory mapped.
func (c *crowdGuest) monitor(b *testing.B) int {
	b.Helper()
	maps, err := filepath.Glob("/proc/[0-9]*/maps")
	must(b, err)
	for _, path := range maps {
		pid, err := strconv.Atoi(strings.Split(path, "/")[2])
		if err != nil || pid == os.Getpid() {
			continue
		}
		if text, err := os.ReadFile(path); err == nil && strings.Contains(string(text), c.MemoryFile()) {
			return pid
		}
	}
	b.Fatal("no process has the guest's memory mapped")
	return 0
}
