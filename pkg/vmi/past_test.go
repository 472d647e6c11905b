package vmi_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/vmgate/vmgate/pkg/vmi"
)

// Who held a socket when a sweep passed is told when it is gone, as the past and
// not as an owner.
func TestGuest_PastOwnerIsRemembered(t *testing.T) {
	f := guest(t)
	pid, err := f.start(t.Context(), "gone", "plain:tcp4:127.0.0.1:8101 udp:udp4:127.0.0.1:8102 udpconn:udp4:127.0.0.1:53")
	if err != nil {
		t.Fatal(err)
	}
	if err := f.os.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	swept := time.Now()
	questions := []vmi.Query{{Proto: 6, Local: local(t, "8101")}, {Proto: 17, Local: local(t, "127.0.0.1:8102")}}
	socks, err := f.os.Sockets(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range socks {
		if len(s.PIDs) == 1 && s.PIDs[0] == pid && s.Remote.Port() == 53 {
			questions = append(questions, vmi.Query{Proto: 17, Local: s.Local, Remote: s.Remote})
		}
	}
	if len(questions) != 3 {
		t.Fatalf("no connected socket of %d among %v", pid, socks)
	}
	for _, q := range questions {
		if a, err := f.os.Owners(t.Context(), q); err != nil || len(a.Owners) != 1 || len(a.Past) != 0 {
			t.Errorf("while it lives: %+v, %v", a, err)
		}
	}
	f.run(t, fmt.Sprintf("kill -9 %d; while [ -d /proc/%d ]; do sleep 0.05; done", pid, pid))
	for range 2 { // before the next sweep and after it
		for _, q := range questions {
			a, err := f.os.Owners(t.Context(), q)
			if err != nil || len(a.Owners) != 0 {
				t.Fatalf("%v: %+v, %v", q, a, err)
			}
			if len(a.Past) != 1 || a.Past[0].PID != pid || a.Past[0].Name != "agent" || a.Past[0].Path != "/bin/agent" || a.Past[0].Start == 0 {
				t.Errorf("%v: past %+v, want %d", q, a.Past, pid)
				continue
			}
			if seen := a.Past[0].Seen; seen.IsZero() || seen.After(a.ReadAt) || swept.Sub(seen) > time.Minute {
				t.Errorf("%v: seen at %v, answered at %v", q, seen, a.ReadAt)
			}
		}
		if err := f.os.Sweep(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	elsewhere := questions[2]
	elsewhere.Local = local(t, "192.0.2.7:"+fmt.Sprint(elsewhere.Local.Port()))
	if a, err := f.os.Owners(t.Context(), elsewhere); err != nil || len(a.Past) != 0 {
		t.Errorf("from another address: %+v, %v", a, err)
	}
}

// A socket that is bound and connected after a sweep saw it is known by its new
// ends after the next.
func TestGuest_SweepFollowsSockets(t *testing.T) {
	f := guest(t)
	pid, err := f.start(t.Context(), "closer", "quit:tcp4:127.0.0.1:7102")
	if err != nil {
		t.Fatal(err)
	}
	if err := f.os.Sweep(t.Context()); err != nil {
		t.Fatal(err)
	}
	f.run(t, "nc -w 2 127.0.0.1 7102 </dev/null; while [ -d /proc/"+itoa(pid)+" ]; do sleep 0.05; done")
	// The port is in TIME_WAIT, or free; its former owner is known either way.
	a, err := f.os.Owners(t.Context(), vmi.Query{Proto: 6, Local: local(t, "7102")})
	if err != nil || len(a.Owners) != 0 || len(a.Past) == 0 || a.Past[0].PID != pid {
		t.Errorf("%+v, %v; want %d in the past", a, err, pid)
	}
}
