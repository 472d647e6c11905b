package api_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/vmgate/vmgate/internal/api"
	"github.com/vmgate/vmgate/internal/api/apitest"
)

// post sends a body as it is and returns the status and the answer.
func (r *running) send(t *testing.T, method, path string, body io.Reader) (int, string) {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(context.Context, string, string) (net.Conn, error) {
			return net.Dial("unix", r.path)
		},
	}, Timeout: 20 * time.Second}
	request, err := http.NewRequestWithContext(t.Context(), method, "http://gatewayd"+path, body)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	text, _ := io.ReadAll(answer.Body)
	return answer.StatusCode, string(text)
}

func TestServer_RefusesAndCountsMalformedCalls(t *testing.T) {
	r := serve(t, nil)
	for name, c := range map[string]struct {
		method, path, body string
		status             int
		want               string
		counted            string
	}{
		"no JSON":            {"POST", "/v1/measures", "isolate app1", 400, "malformed", "malformed"},
		"nothing":            {"POST", "/v1/measures", "", 400, "malformed", "malformed"},
		"cut off":            {"POST", "/v1/measures", `{"action":"isolate","vm":"app1"`, 400, "malformed", "malformed"},
		"unknown field":      {"POST", "/v1/measures", `{"action":"isolate","vm":"app1","force":true}`, 400, `unknown field \"force\"`, "malformed"},
		"two values":         {"POST", "/v1/measures", `{"action":"isolate","vm":"app1"}{}`, 400, "something follows", "malformed"},
		"wrong type":         {"POST", "/v1/measures", `{"action":1}`, 400, "malformed", "malformed"},
		"pid out of range":   {"POST", "/v1/measures", `{"action":"isolate","vm":"app1","pid":-1}`, 400, "malformed", "malformed"},
		"deep nesting":       {"POST", "/v1/measures", strings.Repeat("[", 1<<20), 400, "malformed", "malformed"},
		"oversized":          {"POST", "/v1/config/apply", strings.Repeat("#", api.MaxBody+1), 413, "larger than 4 MiB", "oversized"},
		"unknown measure":    {"POST", "/v1/measures", `{"action":"destroy","vm":"app1"}`, 400, "isolate, inspect or release", ""},
		"no VM":              {"POST", "/v1/measures", `{"action":"isolate"}`, 400, "no VM", ""},
		"unknown verdict":    {"PUT", "/v1/verdicts", `{"vm":"app1","proto":"tcp","port":1,"verdict":"undecided"}`, 400, "unknown verdict", ""},
		"port 0":             {"PUT", "/v1/verdicts", `{"vm":"app1","proto":"tcp","port":0,"verdict":"drop"}`, 400, "no port 0", ""},
		"unknown protocol":   {"PUT", "/v1/verdicts", `{"vm":"app1","proto":"tpc","port":1,"verdict":"drop"}`, 400, "no protocol", ""},
		"negative time":      {"PUT", "/v1/verdicts", `{"vm":"app1","proto":"tcp","port":1,"verdict":"drop","for_ns":-1}`, 400, "at most ten years", ""},
		"port in the path":   {"DELETE", "/v1/verdicts/app1/tcp/70000", "", 400, "no port", ""},
		"entry with no key":  {"POST", "/v1/lists", `{"list":"suspect"}`, 400, "matches everything", ""},
		"entry with an id":   {"POST", "/v1/lists", `{"list":"suspect","name":"x","id":"e1"}`, 400, "set by the daemon", ""},
		"forged origin":      {"POST", "/v1/lists", `{"list":"suspect","name":"x","origin":"config"}`, 400, "set by the daemon", ""},
		"second entry wrong": {"POST", "/v1/lists/import", `[{"list":"suspect","name":"a"},{"list":"grey","name":"b"}]`, 400, "entry 2", ""},
		"no address":         {"POST", "/v1/explain", `{"proto":"tcp","src":"web1","dst":"10.0.0.1"}`, 400, "no IP address", ""},
		"zone":               {"POST", "/v1/explain", `{"proto":"tcp","src":"fe80::1%eth0","dst":"fe80::2"}`, 400, "no IP address", ""},
		"mixed versions":     {"POST", "/v1/explain", `{"proto":"tcp","src":"::1","dst":"10.0.0.1"}`, 400, "different IP versions", ""},
		"report on nothing":  {"POST", "/v1/reports", `{"finding":"suspect","author":"x","reason":"y","for_ns":1}`, 400, "about nothing", ""},
		"report on two":      {"POST", "/v1/reports", `{"finding":"suspect","vm":"app1","pid":1,"fingerprint":"ab","author":"x","reason":"y","for_ns":1}`, 400, "one thing", ""},
		"endless report":     {"POST", "/v1/reports", `{"finding":"suspect","vm":"app1","author":"x","reason":"y"}`, 400, "a year at most", ""},
		"overflowing report": {"POST", "/v1/reports", `{"finding":"suspect","vm":"app1","author":"x","reason":"y","for_ns":9223372036854775807}`, 400, "a year at most", ""},
		"nameless report":    {"POST", "/v1/reports", `{"finding":"suspect","vm":"app1","reason":"y","for_ns":1}`, 400, "author", ""},
		"long report":        {"POST", "/v1/reports", `{"finding":"suspect","vm":"app1","author":"x","reason":"` + strings.Repeat("y", 2000) + `","for_ns":1}`, 400, "more than", ""},
		"report on no flow":  {"POST", "/v1/reports", `{"finding":"suspect","flow":{"proto":"tcp","src":"a","dst":"b"},"author":"x","reason":"y","for_ns":1}`, 400, "no IP address", ""},
		"acquittal":          {"POST", "/v1/reports", `{"finding":"innocent","vm":"app1","author":"x","reason":"y","for_ns":1}`, 400, "suspect or malicious", ""},
		"unknown call":       {"GET", "/v2/status", "", 501, "different versions", "unknown"},
		"unknown method":     {"DELETE", "/v1/status", "", 501, "knows no call DELETE", "unknown"},
	} {
		before := r.refusals(c.counted)
		status, answer := r.send(t, c.method, c.path, strings.NewReader(c.body))
		if status != c.status || !strings.Contains(answer, c.want) || !strings.HasPrefix(answer, `{"error":"`) {
			t.Errorf("%s: %d %.200s, want %d and %q", name, status, answer, c.status, c.want)
		}
		if c.counted != "" && r.refusals(c.counted) != before+1 {
			t.Errorf("%s: not counted as %s", name, c.counted)
		}
	}
	if calls := r.fake.Calls(); len(calls) > 0 {
		t.Errorf("refused calls reached the backend: %q", calls)
	}
	r.wantAlive(t)
}

func TestServer_SurvivesWhatIsNoHTTP(t *testing.T) {
	r := serve(t, nil)
	for _, garbage := range []string{
		"\x00\x01\x02\r\n\r\n",
		"GET /v1/status HTTP/1.1\r\nHost: x\r\nX: " + strings.Repeat("y", 64<<10) + "\r\n\r\n",
		"POST /v1/measures HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n",
	} {
		conn := r.dial(t)
		_, _ = io.WriteString(conn, garbage)
		answer, _ := bufio.NewReader(conn).ReadString('\n')
		if !strings.HasPrefix(answer, "HTTP/1.1 4") {
			t.Errorf("%.20q was answered with %q", garbage, answer)
		}
	}
	r.wantAlive(t)
}

func TestServer_APanicCostsOneCallOnly(t *testing.T) {
	r := serve(t, nil)
	_, err := r.CheckConfig(t.Context(), []byte("panic"))
	var e *api.Error
	if !errors.As(err, &e) || e.Status != 500 || e.Hint == "" {
		t.Errorf("error %#v, want a 500 with a hint", err)
	}
	r.wantAlive(t)
}

func TestServer_ErrorsKeepTheirKindAndHint(t *testing.T) {
	r := serve(t, nil)
	for name, c := range map[string]struct {
		call     func() error
		is       error
		contains string
		hint     string
	}{
		"not found":   {func() error { _, err := r.Processes(t.Context(), "nope"); return err }, api.ErrNotFound, `VM "nope"`, "gatewayd vms"},
		"unavailable": {func() error { _, err := r.Sockets(t.Context(), "dark"); return err }, api.ErrUnavailable, "not booted", ""},
		"invalid":     {func() error { _, err := r.ApplyConfig(t.Context(), []byte("bogus: 1")); return err }, api.ErrInvalid, "gateway.yaml:1:1", ""},
		"no process": {func() error {
			return r.Measure(t.Context(), api.Measure{Action: "isolate", VM: "app1", PID: 5})
		}, api.ErrNotFound, "process 5", "gatewayd ps app1"},
		"odd name": {func() error { _, err := r.Processes(t.Context(), "a/../b c%2f?"); return err }, api.ErrNotFound, `VM "a/../b c%2f?"`, "gatewayd vms"},
	} {
		err := c.call()
		var e *api.Error
		if !errors.Is(err, c.is) || !errors.As(err, &e) || !strings.Contains(e.Message, c.contains) || !strings.Contains(e.Hint, c.hint) || (c.hint == "") != (e.Hint == "") {
			t.Errorf("%s: error %#v, want %v with %q and hint %q", name, err, c.is, c.contains, c.hint)
		}
	}
}

func TestServer_EndsInBoundedTimeWithCallsRunning(t *testing.T) {
	r := serve(t, func(_ *api.ServerConfig, f *apitest.Fake) { f.Flood = true })
	stalled := r.dial(t)
	fmt.Fprint(stalled, "GET /v1/monitor HTTP/1.1\r\nHost: x\r\n\r\n") // and never reads
	halfSent := r.dial(t)
	fmt.Fprint(halfSent, "POST /v1/measures HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
	r.wantAlive(t)

	started := time.Now()
	if err := r.stop(); err != nil {
		t.Error(err)
	}
	if took := time.Since(started); took > 5*time.Second {
		t.Errorf("the end took %v", took)
	}
	if _, err := r.Status(t.Context()); !errors.Is(err, api.ErrUnreachable) || !strings.Contains(err.Error(), r.path) {
		t.Errorf("error %v, want unreachable with the socket's path", err)
	}
}
