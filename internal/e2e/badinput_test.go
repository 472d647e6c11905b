package e2e_test

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/vmgate/vmgate/internal/lab"
)

// TestBadInput: what is wrong is named, with what to do, and nothing
// half-attached remains.
func TestBadInput(t *testing.T) {
	g := newGateway(t)
	const brokenRule = "drop tcp any any -> nowhere\n"
	for _, c := range []struct {
		name  string
		setup setup
		old   string
		new   string
		exit  int
		says  []string
	}{
		{"unknownKey", setup{}, "segments:", "segmets:", 5, []string{"segmets", "gateway.yaml:"}},
		{"MACtwice", setup{}, g.App2.MAC.String(), g.App1.MAC.String(), 5, []string{g.App1.MAC.String(), "given twice", "line 12"}},
		{"overlappingSubnets", setup{}, "10.77.0.0/24,", "10.77.0.0/24, 10.77.0.0/16,", 5, []string{"10.77.0.0/24", "10.77.0.0/16", "apps"}},
		{"noEngine", setup{IDS: harmlessRule}, "engine: suricata", "engine: suricata\n  binary: /nonexistent/suricata", 1, []string{"/nonexistent/suricata"}},
		{"brokenRule", setup{IDS: brokenRule}, "", "", 1, []string{"local.rules", "nowhere"}},
		{"noRules", setup{IDS: harmlessRule}, "local.rules", "missing.rules", 5, []string{"missing.rules"}},
		{"vNICisNotOurs", setup{}, "vnic: gw-web", "vnic: gw-apps", 5, []string{"gw-apps", "web"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.setup.IDS != "" {
				needSuricata(t)
			}
			g.write(c.setup)
			g.writeText(strings.Replace(g.render(c.setup), c.old, c.new, 1))
			out, exit := g.run("run", "--config", g.Config)
			if exit != c.exit || !containsAll(out, c.says...) {
				t.Errorf("ended with %d, want %d, and said, where %q belong:\n%s", exit, c.exit, c.says, out)
			}
			g.wantNothingLeft(t)
		})
	}
	// The same topology still takes a right configuration.
	g.write(setup{})
	g.start()
}

// TestBadInput_ThatShowsLate: the last step of the start fails, and all that was
// attached until then is detached.
func TestBadInput_ThatShowsLate(t *testing.T) {
	g := newGateway(t)
	s := setup{}
	if _, err := exec.LookPath("suricata"); err == nil {
		s.IDS = harmlessRule
	}
	g.write(s)
	must(t, os.MkdirAll(filepath.Dir(g.Socket()), 0o755))
	must(t, os.WriteFile(g.Socket(), nil, 0o600))
	if out, exit := g.run("run", "--config", g.Config); exit != 1 || !containsAll(out, g.Socket(), "no socket") {
		t.Errorf("ended with %d and said:\n%s", exit, out)
	}
	must(t, os.Remove(g.Socket()))
	g.wantNothingLeft(t)
}

// TestBadInput_MemoryThatIsNoGuest: the VM's state says so, and its flows are
// decided by the knob.
func TestBadInput_MemoryThatIsNoGuest(t *testing.T) {
	garbage := filepath.Join(t.TempDir(), "garbage")
	must(t, os.WriteFile(garbage, make([]byte, 64<<20), 0o600))
	missing := filepath.Join(t.TempDir(), "missing")
	for _, c := range []struct{ knob, verdict string }{{"forward", "forward"}, {"drop", "drop"}, {"check", "check"}} {
		t.Run(c.knob, func(t *testing.T) {
			g := namespaced(t, setup{Memory: map[string]string{"app1": missing, "app2": garbage}, Failure: "{introspection: " + c.knob + "}"})
			for vm, path := range map[string]string{"app1": missing, "app2": garbage} {
				await(t, vm+"'s memory is known to be unusable", func() bool {
					m := g.vm(vm)
					return (m.Memory == "failing" || m.Memory == "waiting") && m.Detail != "" && m.Detail != "not tried yet"
				})
				if m := g.vm(vm); vm == "app1" && (m.Memory != "failing" || !strings.Contains(m.Detail, path)) {
					t.Errorf("%s is %s: %s", vm, m.Memory, m.Detail)
				}
			}
			for _, from := range []*lab.Host{g.App1, g.App2} {
				p := newProbe(from, g.Web1, 80)
				mark := g.events.mark()
				p.send(t)
				e := g.events.wait(t, mark, "the decision", decisionOn(p.source))
				if e.Verdict != c.verdict || c.verdict != "forward" && e.Cause != "introspection" || e.SrcProcess != nil {
					t.Errorf("decided %s (%s), want %s", e.Verdict, e.Cause, c.verdict)
				}
				if c.verdict == "forward" {
					g.webWire.wait(t, p.String(), carries(p.payload))
				} else if len(g.webWire.seen(carries(p.payload))) > 0 {
					t.Errorf("arrived: %s", p) // without an engine, check is closed
				}
			}
		})
	}
}

// TestBadInput_OnTheSocket is refused, and the daemon lives on.
func TestBadInput_OnTheSocket(t *testing.T) {
	g := namespaced(t, setup{})
	for name, text := range map[string]string{
		"garbage":     "\x00\xff\x17garbage\r\n\r\n",
		"noSuchCall":  "GET /v1/nothing HTTP/1.1\r\nHost: x\r\n\r\n",
		"badJSON":     request("POST", "/v1/measures", `{"action":`),
		"unknownKey":  request("POST", "/v1/measures", `{"action":"isolate","vm":"app2","extra":1}`),
		"wrongType":   request("POST", "/v1/measures", `{"action":7,"vm":["app2"]}`),
		"badVerdict":  request("PUT", "/v1/verdicts", `{"vm":"app1","proto":"tcp","port":80,"verdict":"maybe"}`),
		"hugePort":    request("PUT", "/v1/verdicts", `{"vm":"app1","proto":"tcp","port":70000,"verdict":"drop"}`),
		"tooLong":     request("POST", "/v1/config/apply", strings.Repeat("x", 8<<20)),
		"notYAML":     request("POST", "/v1/config/apply", "\x00{{{"),
		"hugeHeader":  "GET /v1/status HTTP/1.1\r\nHost: x\r\nX-Long: " + strings.Repeat("y", 4<<20) + "\r\n\r\n",
		"badTuple":    request("POST", "/v1/explain", `{"proto":"tcp","src":"nonsense","dst":"::"}`),
		"halfRequest": "POST /v1/measures HTTP/1.1\r\nHost: x\r\nContent-Length: 999999\r\n\r\n{",
	} {
		t.Run(name, func(t *testing.T) {
			conn, err := net.Dial("unix", g.Socket())
			must(t, err)
			defer conn.Close()
			must(t, conn.SetDeadline(time.Now().Add(patience)))
			_, _ = conn.Write([]byte(text)) // it may hang up in the middle
			must(t, conn.(*net.UnixConn).CloseWrite())
			answer := make([]byte, 64)
			n, _ := conn.Read(answer)
			if said := string(answer[:n]); n > 0 && !strings.HasPrefix(said, "HTTP/1.1 4") && !strings.HasPrefix(said, "HTTP/1.1 501") {
				t.Errorf("answered %q", said)
			}
		})
	}
	status, err := g.Client.Status(t.Context())
	if err != nil || status.PID != g.PID() {
		t.Fatalf("the daemon is pid %d now: %v", status.PID, err)
	}
	if vm := g.vm("app2"); vm.Verdict != "forward" {
		t.Errorf("a malformed call made app2 %s", vm.Verdict)
	}
	p := newProbe(g.App1, g.Web1, 80)
	g.passes(t, g.webWire, p)
}

func request(method, path, body string) string {
	return fmt.Sprintf("%s %s HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", method, path, len(body), body)
}
