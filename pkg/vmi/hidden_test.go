package vmi_test

import (
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/vmgate/vmgate/pkg/vmi"
	"github.com/vmgate/vmgate/pkg/vmi/vmitest"
)

// listed says whether the guest's own ps shows a pid.
func (f *fixture) listed(t *testing.T, pid uint32) bool {
	t.Helper()
	for line := range strings.Lines(f.run(t, "ps")) {
		if w := strings.Fields(line); w[0] != "PID" && uint32(number(t, w[0])) == pid {
			return true
		}
	}
	return false
}

func (f *fixture) owner(t *testing.T, port string) vmi.Process {
	t.Helper()
	a, err := f.os.Owners(t.Context(), vmi.Query{Proto: 6, Local: local(t, port)})
	if err != nil || len(a.Owners) != 1 {
		t.Fatalf("owners of %s: %+v, %v", port, a, err)
	}
	return a.Owners[0]
}

func (f *fixture) hiddenPIDs(t *testing.T) []uint32 {
	t.Helper()
	list, err := f.os.Processes(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var out []uint32
	for _, p := range list {
		if p.Hidden {
			out = append(out, p.PID)
		}
	}
	return out
}

func TestGuest_HiddenProcessIsFoundAndCanEnd(t *testing.T) {
	f := guest(t)
	pid, err := f.start(t.Context(), "victim", "plain:tcp4:0.0.0.0:6666 quit:tcp4:127.0.0.1:7000")
	if err != nil {
		t.Fatal(err)
	}
	if p := f.owner(t, "6666"); p.PID != pid || p.Hidden || !f.listed(t, pid) {
		t.Fatalf("hidden before anybody hid it: %+v", p)
	}
	if err := vmitest.Hide(f.MemoryFile(), "", pid); err != nil {
		t.Fatal(err)
	}
	if f.listed(t, pid) {
		t.Fatal("the guest's ps still shows it: nothing to find")
	}
	before := f.owner(t, "6666") // from the cache
	if before.PID != pid || !before.Hidden || before.HiddenWhy == "" || slices.Contains(before.Views, "pids") {
		t.Errorf("cached owner: %+v", before)
	}
	fresh, err := vmi.Open(t.Context(), f.mem, vmi.Options{})
	if err != nil {
		t.Fatal(err)
	}
	a, err := fresh.Owners(t.Context(), vmi.Query{Proto: 6, Local: local(t, "6666")})
	if err != nil || len(a.Owners) != 1 || a.Owners[0].PID != pid || !a.Owners[0].Hidden {
		t.Errorf("owner found without the lists: %+v, %v", a, err)
	}
	if got := f.hiddenPIDs(t); !slices.Equal(got, []uint32{pid}) {
		t.Errorf("hidden processes %v, want %d", got, pid)
	}
	expectAlive(t, f, pid, before.Start, true)
	if _, err := f.start(t.Context(), "friend", "connect:tcp4:127.0.0.1:6666"); err != nil {
		t.Errorf("the hidden process's socket does not work: %v", err)
	}

	f.run(t, "nc -w 2 127.0.0.1 7000 </dev/null") // it exits
	for _, check := range []string{"ps", "ls -d /proc/1", "true | cat"} {
		f.run(t, check)
	}
	expectAlive(t, f, pid, before.Start, false)
	if got := f.hiddenPIDs(t); len(got) != 0 {
		t.Errorf("hidden after its end: %v", got)
	}
	if console := f.Console(); strings.Contains(console, "BUG") || strings.Contains(console, "Oops") {
		t.Errorf("the guest's kernel suffered:\n%s", console)
	}
}

func TestGuest_ParentCanWaitForHiddenChild(t *testing.T) {
	f := guest(t)
	f.run(t, "(agent ward quit:tcp4:127.0.0.1:7001 >/tmp/ward & echo $! >/tmp/ward.pid; wait $!; echo $? >/tmp/ward.status) >/dev/null 2>&1 &")
	pid := uint32(number(t, strings.TrimSpace(f.run(t, "while ! grep -q ready /tmp/ward; do sleep 0.05; done; cat /tmp/ward.pid"))))
	if err := vmitest.Hide(f.MemoryFile(), "", pid); err != nil {
		t.Fatal(err)
	}
	f.run(t, "nc -w 2 127.0.0.1 7001 </dev/null")
	if out := f.run(t, "n=0; while [ ! -s /tmp/ward.status ] && [ $n -lt 100 ]; do sleep 0.05; n=$((n+1)); done; cat /tmp/ward.status"); out != "7\n" {
		t.Errorf("its parent saw status %q, want 7", out)
	}
}

// Of two holders of one socket only the child is hidden: both are named, and
// only the child is called hidden.
func TestGuest_HiddenSharerIsFoundBesideItsParent(t *testing.T) {
	f := guest(t)
	if err := vmitest.Hide(f.MemoryFile(), "", f.agent["kid"]); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := vmitest.Unhide(f.MemoryFile(), "", f.agent["kid"]); err != nil {
			t.Error(err)
		}
	}()
	g, err := vmi.Open(t.Context(), f.mem, vmi.Options{})
	if err != nil {
		t.Fatal(err)
	}
	a, err := g.Owners(t.Context(), vmi.Query{Proto: 6, Local: local(t, "90")})
	if err != nil {
		t.Fatal(err)
	}
	got := make(map[uint32]bool)
	for _, p := range a.Owners {
		got[p.PID] = p.Hidden
	}
	if want := map[uint32]bool{f.agent["par"]: false, f.agent["kid"]: true}; !maps.Equal(got, want) {
		t.Errorf("owners (and hidden) %v, want %v", got, want)
	}
}

func TestGuest_Unhide(t *testing.T) {
	f := guest(t)
	pid, err := f.start(t.Context(), "shy", "plain:tcp4:0.0.0.0:6667")
	if err != nil {
		t.Fatal(err)
	}
	if err := vmitest.Hide(f.MemoryFile(), "", pid); err != nil {
		t.Fatal(err)
	}
	if err := vmitest.Hide(f.MemoryFile(), "", pid); err == nil {
		t.Error("hidden twice")
	}
	if err := vmitest.Unhide(f.MemoryFile(), "", pid); err != nil {
		t.Fatal(err)
	}
	if p := f.owner(t, "6667"); p.Hidden || !f.listed(t, pid) {
		t.Errorf("still hidden: %+v", p)
	}
	f.run(t, "kill -9 "+itoa(pid)+"; while [ -d /proc/"+itoa(pid)+" ]; do sleep 0.05; done")
	if got := f.hiddenPIDs(t); len(got) != 0 {
		t.Errorf("hidden: %v", got)
	}
}

func itoa(pid uint32) string { return strconv.FormatUint(uint64(pid), 10) }
