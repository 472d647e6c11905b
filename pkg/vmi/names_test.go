package vmi_test

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"testing"

	"github.com/vmgate/vmgate/pkg/vmi"
)

// A guest's processes choose their names, files and arguments. Nothing of what
// is said of them can take a terminal over, break a line of a log, or is no
// UTF-8; and no name is shown as another's.
func TestGuest_NamesAreHostile(t *testing.T) {
	f := guest(t)
	const name = `ng\033]0;x\007\ni\377nx`
	f.run(t, fmt.Sprintf(`n=$(printf '/tmp/%s'); cp /bin/agent "$n"; "$n" "$(printf '\033[2J\nroot\377')" plain:tcp4:127.0.0.1:7100 >/tmp/hostile.log 2>&1 & echo $! >/tmp/hostile.pid
while ! grep -q ready /tmp/hostile.log; do sleep 0.05; done; rm "$(printf '/tmp/%s')"`, name, name))
	pid := uint32(number(t, strings.TrimSpace(f.run(t, "cat /tmp/hostile.pid"))))
	defer f.run(t, "kill -9 "+itoa(pid))
	p := f.process(t, pid)
	if !strings.HasPrefix(p.Name, `ng\x1b]0;x\a\n`) || !strings.HasPrefix(p.Path, `/tmp/ng\x1b]0;x\a\ni\xffnx`) {
		t.Errorf("it is shown as %q, %q", p.Name, p.Path)
	}
	if len(p.Args) < 2 || p.Args[1] != `\x1b[2J\nroot\xff` {
		t.Errorf("its arguments are shown as %q", p.Args)
	}
	answer, err := f.os.Owners(t.Context(), vmi.Query{Proto: 6, Local: local(t, "7100")})
	if err != nil || len(answer.Owners) != 1 || answer.Owners[0].Name != p.Name {
		t.Errorf("the owner of its port is %+v, %v", answer.Owners, err)
	}
	findings, err := f.os.Findings(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	processes, err := f.os.Processes(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, said := range []any{answer, findings, processes, f.os.OS()} {
		expectPrintable(t, said)
	}
}

// expectPrintable checks every string in what was said.
func expectPrintable(t *testing.T, said any) {
	t.Helper()
	text, err := json.Marshal(said)
	if err != nil {
		t.Fatal(err)
	}
	var all any
	if err := json.Unmarshal(text, &all); err != nil {
		t.Fatal(err)
	}
	var visit func(any)
	visit = func(v any) {
		switch v := v.(type) {
		case string:
			if strings.ContainsFunc(v, func(r rune) bool { return !strconv.IsPrint(r) || r == 0xfffd }) {
				t.Errorf("%q is not printable", v)
			}
		case []any:
			for _, e := range v {
				visit(e)
			}
		case map[string]any:
			for _, e := range v {
				visit(e)
			}
		}
	}
	visit(all)
}

// A container of a host with the hierarchies of version 1 (cgroup v1) is known
// by its place in these, the unified one having the process at its root.
func TestGuest_ContainerByControllers(t *testing.T) {
	f := guest(t)
	id := strings.Repeat("fedcba9876543210", 4)
	path := "/docker/" + id
	pid, err := f.start(t.Context(), "boxed", "plain:tcp4:127.0.0.1:7200")
	if err != nil {
		t.Fatal(err)
	}
	defer f.run(t, "kill -9 "+itoa(pid))
	mounted := strings.TrimSpace(f.run(t, "mkdir -p /tmp/cg1; for c in pids freezer devices cpuset; do mount -t cgroup -o $c c /tmp/cg1 2>/dev/null && echo $c && break; done"))
	if mounted == "" {
		t.Skip("the guest's kernel has no control groups of version 1")
	}
	f.run(t, "mkdir -p /tmp/cg1"+path+"; echo "+itoa(pid)+" >/tmp/cg1"+path+"/cgroup.procs")
	defer f.run(t, "echo "+itoa(pid)+" >/tmp/cg1/cgroup.procs; rmdir /tmp/cg1"+path+" /tmp/cg1/docker; umount /tmp/cg1")
	said := f.run(t, "cat /proc/"+itoa(pid)+"/cgroup")
	if !strings.Contains(said, ":"+path+"\n") {
		t.Fatalf("the guest says that it is in %q", said)
	}
	p := f.process(t, pid)
	if p.Cgroup != path || p.Container != id {
		t.Errorf("cgroup %q, container %q; the guest says %q", p.Cgroup, p.Container, said)
	}
	if web := f.process(t, f.agent["web"]); web.Container != "" || web.Cgroup != "/" {
		t.Errorf("web is in cgroup %q, container %q", web.Cgroup, web.Container)
	}
}
