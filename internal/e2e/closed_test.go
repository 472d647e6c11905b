package e2e_test

import (
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestIDS_ClosedLetsNothingByUninspected: each packet of a suspect flow is one that the
// engine drops. So one that arrives has not been inspected; none may, through all that
// happens to an engine.
func TestIDS_ClosedLetsNothingByUninspected(t *testing.T) { eachEngine(t, checkClosed) }

func checkClosed(t *testing.T, s setup) {
	const poison = "e2e-poison"
	s.IDS = `drop udp any any -> any any (msg:"poison"; content:"` + poison + `"; sid:7000301; rev:1;)` + "\n"
	s.IDSMore = "convict: [{then: ignore}]" // else the flow is cut off in XDP
	g := namespaced(t, s)
	absorb(t, g.Web1, 443)
	p := newProbe(g.App1, g.Web1, 443)
	g.passes(t, g.webWire, p)
	template := p
	template.payload = fmt.Sprintf("<%s-%08d>", poison, 0)
	frame := template.frame(t)
	at := strings.Index(string(frame), poison) + len(poison) + 1
	copy(frame[14+20+6:], []byte{0, 0}) // no UDP checksum: the number changes alone
	fd := packetSocket(t, g.App1.Namespace, g.App1.Interface, 0)
	defer unix.Close(fd)

	var sent atomic.Int64
	stop := make(chan struct{})
	var sending sync.WaitGroup
	sending.Go(func() {
		for ; ; sent.Add(1) {
			select {
			case <-stop:
				return
			case <-time.After(200 * time.Microsecond):
			}
			copy(frame[at:], fmt.Sprintf("%08d", sent.Load()))
			if _, err := unix.Write(fd, frame); err != nil && err != unix.ENOBUFS {
				t.Error(err)
				return
			}
		}
	})
	up := func(but int) (pid int) {
		t.Helper()
		await(t, "the engine is up", func() bool {
			status, err := g.Client.Status(t.Context())
			pid = status.IDS.PID
			return err == nil && status.IDS.State == "up" && pid != 0 && pid != but
		})
		before := g.counts()
		g.awaitCount(t, before, "apps/check", 100) // the flow goes through it
		return pid
	}
	pid := up(0)
	for _, step := range []struct {
		name string
		do   func() (gone int)
	}{
		{"killed", func() int { must(t, syscall.Kill(pid, syscall.SIGKILL)); return pid }},
		{"hung", func() int { must(t, syscall.Kill(pid, syscall.SIGSTOP)); return pid }},
		{"reload", func() int { must(t, g.Client.ReloadIDS(t.Context())); return 0 }},
		{"ended by itself", func() int { must(t, syscall.Kill(pid, syscall.SIGTERM)); return pid }},
		{"killed with the daemon", func() int {
			g.restart(syscall.SIGKILL, func() { must(t, syscall.Kill(pid, syscall.SIGKILL)) })
			return pid
		}},
		{"the daemon alone", func() int { g.restart(syscall.SIGKILL, func() {}); return pid }},
	} {
		from := sent.Load()
		pid = up(step.do())
		t.Logf("%s: %d packets", step.name, sent.Load()-from)
	}
	close(stop)
	sending.Wait()
	g.passes(t, g.webWire, p.again())
	arrived := g.webWire.seen(carries(poison))
	if len(arrived) > 0 {
		t.Errorf("%d of %d packets were delivered uninspected, the first is %q", len(arrived), sent.Load(), arrived[0])
	}
	t.Logf("%d packets, none delivered uninspected", sent.Load())
}
