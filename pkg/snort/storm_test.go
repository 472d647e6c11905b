package snort

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

// A storm costs lines, not actions: all of it is dropped.
func TestEngine_StormIsDroppedAndToldBriefly(t *testing.T) {
	eachEngine(t, func(t *testing.T, engine string) {
		t.Parallel()
		const storm = 20000
		for name, c := range map[string]struct {
			rules string
			frame func(i int) []byte
			pass  int
		}{
			"plain rule": {
				`drop udp any any -> any 9999 (msg:"m"; content:"bad"; sid:5; rev:1;)` + "\n",
				func(int) []byte { return udpFrame(t, false, []byte("bad")) }, 0,
			},
			"rule with a filter of its own": {synFlood, func(i int) []byte { return syn(t, uint16(i), 7) }, 10},
		} {
			t.Run(name, func(t *testing.T) {
				w := newWire(t)
				r := run(t, configFor(t, engine, w, c.rules))
				r.await(PhaseUp)
				began := time.Now()
				for i := range storm {
					w.i0.send(c.frame(i))
				}
				fence, passed := udpFrame(t, false, []byte("fence")), 0
				for deadline := time.Now().Add(10 * time.Second); ; {
					if frame, ok := w.i1.next(100 * time.Millisecond); ok && string(frame) == string(fence) {
						break
					} else if ok {
						passed++
						continue
					}
					w.i0.send(fence) // the one before may have found the ring full
					if time.Now().After(deadline) {
						t.Fatal("nothing passes after the storm")
					}
				}
				must(t, r.stop()) // every line is read
				seconds := int(time.Since(began)/time.Second) + 2
				if passed != c.pass {
					t.Errorf("%d packets passed, want %d", passed, c.pass)
				}
				s := r.State()
				if n := len(r.alerts); n == 0 || n > seconds*alertsPerSecond || s.Lost != 0 {
					t.Errorf("%d alerts in %d s, %+v", n, seconds, s)
				}
				if c.pass == 0 && s.Lines > uint64(seconds*alertsPerSecond) {
					t.Errorf("the engine's own filter does not work: %+v", s)
				}
				t.Logf("%d alerts; %d lines, %d of them repeats", len(r.alerts), s.Lines, s.Repeated)
			})
		}
	})
}

// A hundred thousand lines pass in far less than a second, and hide no other alert.
func TestEngine_StormDoesNotHideAnother(t *testing.T) {
	for _, drv := range []driver{suricata{}, snort3{}} {
		line, other := recorded(t, drv), ""
		queue := make(chan Alert, queueLength)
		e := &Engine{alerts: intake{log: testLog(t), queue: queue}}
		other = strings.Replace(line, "192.168.1.10", "192.168.1.11", 1)
		began := time.Now()
		const storm = 100_000
		for i := range storm {
			// Each from another port.
			e.alerts.line(drv, []byte(strings.Replace(line, "2671", fmt.Sprint(i%60000), 1)))
			if i == storm/2 {
				e.alerts.line(drv, []byte(other))
			}
		}
		took := time.Since(began)
		s := e.State()
		t.Logf("%T: %v for %d lines, %d alerts", drv, took, s.Lines, len(queue))
		if limit := (int(took/time.Second) + 2) * alertsPerSecond; s.Lost != 0 || s.Malformed != 0 || len(queue) > limit+1 ||
			s.Repeated != s.Lines-uint64(len(queue)) {
			t.Errorf("%T: %+v, %d alerts", drv, s, len(queue))
		}
		found := 0
		for len(queue) > 0 {
			if a := <-queue; a.Src.Addr().String() == "192.168.1.11" {
				found++
			}
		}
		if found != 1 {
			t.Errorf("%T: the other alert came %d times", drv, found)
		}
	}
}

func recorded(t testing.TB, drv driver) string {
	t.Helper()
	name := "testdata/eve.json"
	if drv == (snort3{}) {
		name = "testdata/alert_json.txt"
	}
	text, err := os.ReadFile(name)
	must(t, err)
	return strings.TrimSpace(string(text))
}

func TestLimiter(t *testing.T) {
	line := recorded(t, suricata{})
	now := time.Unix(1000, 0)
	var l limiter
	count := func(line string, now time.Time) (passed int) {
		for range 3 * alertsPerSecond {
			if !l.enough([]byte(line), suricata{}.marks(), now) {
				passed++
			}
		}
		return passed
	}
	for name, c := range map[string]struct {
		line string
		want int
	}{
		"as it is":       {line, alertsPerSecond},
		"another rule":   {strings.Replace(line, "1000001", "1000002", 1), alertsPerSecond},
		"another source": {strings.Replace(line, ".10\"", ".9\"", 1), alertsPerSecond},
		"another action": {strings.Replace(line, "blocked", "allowed", 1), alertsPerSecond},
		"no alert":       {`{"event_type":"stats"}`, 3 * alertsPerSecond},
		"cut":            {line[:strings.Index(line, "1000001")+3], 3 * alertsPerSecond},
		"endless value":  {strings.Replace(line, "1000001", strings.Repeat("1", 1000), 1), 3 * alertsPerSecond},
	} {
		if got := count(c.line, now); got != c.want {
			t.Errorf("%s: %d passed, want %d", name, got, c.want)
		}
	}
	if got := count(line, now.Add(time.Second)); got != alertsPerSecond {
		t.Errorf("in the next second: %d", got)
	}
	for i := range 2 * maxLimited {
		l.enough([]byte(strings.Replace(line, "1000001", fmt.Sprint(i), 1)), suricata{}.marks(), now)
	}
	if len(l.seen) > maxLimited {
		t.Errorf("%d keys", len(l.seen))
	}
}
