package api_test

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"path/filepath"
	"strings"
	"testing"

	"github.com/vmgate/vmgate/internal/api"
	"github.com/vmgate/vmgate/internal/api/apitest"
	"github.com/vmgate/vmgate/pkg/verdict"
)

// strict is a backend that fails the test when it is given what the server
// should have refused.
type strict struct {
	*apitest.Fake
	t *testing.T
}

func (s strict) SetVerdict(ctx context.Context, c api.VerdictChange) error {
	if _, err := verdict.ParseVerdict(c.Verdict); err != nil || c.For < 0 || c.By != "fuzz" || c.VM == "" {
		s.t.Errorf("SetVerdict got %+v", c)
	}
	return s.Fake.SetVerdict(ctx, c)
}

func (s strict) Measure(ctx context.Context, m api.Measure) error {
	if m.Action != "isolate" && m.Action != "inspect" && m.Action != "release" || m.By != "fuzz" || m.VM == "" {
		s.t.Errorf("Measure got %+v", m)
	}
	return s.Fake.Measure(ctx, m)
}

func (s strict) Report(ctx context.Context, r api.Report) error {
	if r.By != "fuzz" || r.For <= 0 || r.Author == "" || r.Flow == nil && r.VM == "" && r.Fingerprint == "" || r.Finding != "suspect" && r.Finding != "malicious" {
		s.t.Errorf("Report got %+v", r)
	}
	return s.Fake.Report(ctx, r)
}

func (s strict) ImportListEntries(ctx context.Context, entries []api.ListEntry) error {
	for _, e := range entries {
		if e.Origin != "import" || e.ID != "" || e.Name+e.Path+e.Fingerprint == "" || len(e.Name) > 15 {
			s.t.Errorf("ImportListEntries got %+v", e)
		}
	}
	return s.Fake.ImportListEntries(ctx, entries)
}

func (s strict) Explain(ctx context.Context, t api.Tuple) (api.Explanation, error) {
	src, err1 := netip.ParseAddr(t.Src)
	dst, err2 := netip.ParseAddr(t.Dst)
	if err1 != nil || err2 != nil || src.Is4() != dst.Is4() {
		s.t.Errorf("Explain got %+v", t)
	}
	return s.Fake.Explain(ctx, t)
}

// FuzzCalls sends any body to any call, and any text in its path: none may panic, every answer is JSON,
// and the backend is given only what has been checked.
func FuzzCalls(f *testing.F) {
	paths := []struct{ method, path string }{
		{"PUT", "/v1/verdicts"}, {"POST", "/v1/measures"}, {"POST", "/v1/lists"}, {"POST", "/v1/lists/import"}, {"POST", "/v1/explain"},
		{"POST", "/v1/reports"}, {"POST", "/v1/ids/reload"}, {"POST", "/v1/ids/test"}, {"POST", "/v1/config/check"}, {"POST", "/v1/config/apply"},
		// In these the input stands for {}.
		{"GET", "/v1/vms/{}/processes/7/fingerprint"}, {"GET", "/v1/vms/app1/processes/{}/fingerprint"}, {"GET", "/v1/vms/{}/modules"},
		{"GET", "/v1/vms/{}/findings"}, {"GET", "/v1/vms/app1/owner/{}/80"}, {"GET", "/v1/vms/app1/owner/tcp/{}"}, {"GET", "/v1/{}"},
		{"DELETE", "/v1/lists/{}"}, {"DELETE", "/v1/verdicts/{}/tcp/80"}, {"GET", "/v1/ids"},
	}
	f.Add(uint8(0), []byte(`{"vm":"app1","proto":"tcp","port":80,"verdict":"drop","for_ns":1000}`))
	f.Add(uint8(1), []byte(`{"action":"isolate","vm":"app1","pid":120,"by":"root"}`))
	f.Add(uint8(2), []byte(`{"list":"suspect","name":"nc","vm":"app1","reason":"r"}`))
	f.Add(uint8(3), []byte(`[{"list":"malicious","path":"/bin/x"},{"list":"suspect","fingerprint":"00ff"}]`))
	f.Add(uint8(4), []byte(`{"proto":"6","src":"10.0.0.11","src_port":1,"dst":"10.0.0.21","dst_port":80}`))
	f.Add(uint8(4), []byte(`{"proto":"6","src":"::ffff:10.0.0.11","dst":"2001:db8::1"}`))
	f.Add(uint8(5), []byte(`{"finding":"malicious","vm":"app1","pid":7,"author":"av","reason":"r","for_ns":1}`))
	f.Add(uint8(5), []byte(`{"finding":"suspect","flow":{"proto":"udp","src":"10.0.0.11","dst":"10.0.0.21"},"author":"av","reason":"r","for_ns":1}`))
	for which := range paths {
		for _, input := range []string{"", ".", "../..", "app1", "-1", "4294967296", "a/b?c=%zz\x00\xff"} {
			f.Add(uint8(which), []byte(input))
		}
	}
	server, backend := fuzzServer(f)
	f.Fuzz(func(t *testing.T, which uint8, body []byte) {
		*backend = strict{apitest.New(), t}
		call := paths[int(which)%len(paths)]
		path := strings.ReplaceAll(call.path, "{}", url.PathEscape(string(body)))
		request := api.WithPeer(httptest.NewRequest(call.method, path, bytes.NewReader(body)), "fuzz")
		answer := httptest.NewRecorder()
		server.ServeHTTP(answer, request)
		if answer.Code == http.StatusNoContent || answer.Code/100 == 3 { // 3: to the path without its dots
			return
		}
		if !json.Valid(answer.Body.Bytes()) || answer.Code == http.StatusInternalServerError {
			t.Errorf("%s %s with %q: %d %s", call.method, call.path, body, answer.Code, answer.Body)
		}
	})
}

// fuzzServer returns a server that is never connected to, and its backend,
// which each run replaces.
func fuzzServer(f *testing.F) (*api.Server, *strict) {
	backend := new(strict)
	server, err := api.Listen(api.ServerConfig{Path: filepath.Join(f.TempDir(), "s"), Backend: backend, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		f.Fatal(err)
	}
	return server, backend
}
