package remote

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"

	"github.com/vmgate/vmgate/pkg/vmi"
)

// nobody is a guest that answers nothing and notes that it was asked.
type nobody struct{ asked int }

func (n *nobody) OS() string { return "" }
func (n *nobody) Owners(context.Context, vmi.Query) (a vmi.Answer, err error) {
	n.asked++
	return a, nil
}
func (n *nobody) Processes(context.Context) ([]vmi.Process, error) { n.asked++; return nil, nil }
func (n *nobody) Sockets(context.Context) ([]vmi.Socket, error)    { n.asked++; return nil, nil }
func (n *nobody) Modules(context.Context) ([]vmi.Module, error)    { n.asked++; return nil, nil }
func (n *nobody) Sweep(context.Context) error                      { n.asked++; return nil }
func (n *nobody) Findings(context.Context) ([]vmi.Finding, error)  { n.asked++; return nil, nil }
func (n *nobody) Alive(context.Context, uint32, uint64) (bool, error) {
	n.asked++
	return false, nil
}
func (n *nobody) Fingerprint(context.Context, uint32, uint64) (f vmi.Fingerprint, err error) {
	n.asked++
	return f, nil
}

// FuzzCall: what a client sends is carried out, or refused as invalid.
func FuzzCall(f *testing.F) {
	f.Add("/v1/app1/owners", `{"Proto":6,"Local":"10.0.0.1:80","Remote":"","NetNS":1}`)
	f.Add("/v1/a%2fb/alive", `{"pid":1,"start_ns":18446744073709551615}`)
	f.Add("/v1/app1/processes", `{}`)
	f.Fuzz(func(t *testing.T, path, body string) {
		vm, name, ok := splitPath(http.MethodPost, path)
		if ok && (vm == "" || strings.Contains(name, "/")) {
			t.Errorf("%q was taken apart to %q and %q", path, vm, name)
		}
		for _, m := range methods {
			guest := &nobody{}
			_, err := m.answer(t.Context(), guest, strings.NewReader(body))
			if err != nil && (!errors.Is(err, ErrInvalid) || guest.asked != 0) || err == nil && guest.asked != 1 {
				t.Errorf("%q: %v, asked %d times", body, err, guest.asked)
			}
			if err == nil && len(body) > maxRequest {
				t.Errorf("%d bytes were taken", len(body))
			}
		}
	})
}

// FuzzAnswer: what an inspector sends is an answer or an error, and bounded.
func FuzzAnswer(f *testing.F) {
	f.Add(200, []byte(`{"owners":[{"pid":42,"start_ns":7,"name":"x","views":["tasks"]}],"read_at":"2026-01-01T00:00:00Z","took_ns":5}`))
	f.Add(409, []byte(`{"kind":"changed","error":"it was rebooted"}`))
	f.Add(200, []byte(`[{"proto":6,"local":"[::1]:80","remote":"","pids":[1,2]}]`))
	f.Fuzz(func(t *testing.T, status int, body []byte) {
		err := decodeError(status, bytes.NewReader(body))
		if err == nil || len(err.Error()) > maxError {
			t.Errorf("an error became %v", err)
		}
		for _, into := range []any{new(opening), new(vmi.Answer), new([]vmi.Process), new([]vmi.Socket), new([]vmi.Finding), new([]vmi.Module), new(bool), new(vmi.Fingerprint)} {
			if decode(bytes.NewReader(body), 64, into) == nil && len(body) > 64 {
				t.Errorf("%d bytes were taken", len(body))
			}
		}
	})
}
