package api_test

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/vmgate/vmgate/internal/api"
	"github.com/vmgate/vmgate/internal/api/apitest"
)

// What comes out of the client is what the backend has given, field by field.
func TestClient_MirrorsTheBackend(t *testing.T) {
	r := serve(t, nil)
	tuple := api.Tuple{Proto: "TCP", Src: "::ffff:10.0.0.11", SrcPort: 40000, Dst: "10.0.0.21", DstPort: 80}
	normal := api.Tuple{Proto: "tcp", Src: "10.0.0.11", SrcPort: 40000, Dst: "10.0.0.21", DstPort: 80}
	for name, ask := range map[string]func(api.Backend, api.Tuple) (any, error){
		"Status":      func(b api.Backend, _ api.Tuple) (any, error) { return b.Status(t.Context()) },
		"VMs":         func(b api.Backend, _ api.Tuple) (any, error) { return b.VMs(t.Context()) },
		"Processes":   func(b api.Backend, _ api.Tuple) (any, error) { return b.Processes(t.Context(), "app1") },
		"Sockets":     func(b api.Backend, _ api.Tuple) (any, error) { return b.Sockets(t.Context(), "app1") },
		"Verdicts":    func(b api.Backend, _ api.Tuple) (any, error) { return b.Verdicts(t.Context()) },
		"Flows":       func(b api.Backend, _ api.Tuple) (any, error) { return b.Flows(t.Context()) },
		"Lists":       func(b api.Backend, _ api.Tuple) (any, error) { return b.Lists(t.Context()) },
		"Policy":      func(b api.Backend, _ api.Tuple) (any, error) { return b.Policy(t.Context()) },
		"CheckConfig": func(b api.Backend, _ api.Tuple) (any, error) { return b.CheckConfig(t.Context(), []byte("x")) },
		"Reload":      func(b api.Backend, _ api.Tuple) (any, error) { return b.Reload(t.Context()) },
		"Explain":     func(b api.Backend, tuple api.Tuple) (any, error) { return b.Explain(t.Context(), tuple) },
	} {
		got, err := ask(r.Client, tuple)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		want, _ := ask(apitest.New(), normal)
		compareAddrs := cmp.Exporter(func(t reflect.Type) bool { return t.PkgPath() == "net/netip" || t.PkgPath() == "unique" })
		if diff := cmp.Diff(want, got, cmpopts.EquateComparable(), compareAddrs, cmpopts.EquateEmpty()); diff != "" {
			t.Errorf("%s differs (-backend +client):\n%s", name, diff)
		}
	}
}

func TestClient_ChangesReachTheBackendWithTheCallersName(t *testing.T) {
	r := serve(t, nil)
	ctx := t.Context()
	port := api.Port{VM: "app1", Proto: "UDP", Port: 53}
	for _, err := range []error{
		r.SetVerdict(ctx, api.VerdictChange{Port: port, Verdict: "check", For: time.Minute, By: "mallory"}),
		r.Measure(ctx, api.Measure{Action: "inspect", VM: "web1", PID: 120, By: "mallory"}),
		r.AddListEntry(ctx, api.ListEntry{List: "suspect", Name: "nc"}),
		r.ImportListEntries(ctx, []api.ListEntry{{List: "malicious", Path: "/bin/x"}}),
		r.DeleteVerdict(ctx, port),
		r.RemoveListEntry(ctx, "e1"),
	} {
		if err != nil {
			t.Error(err)
		}
	}
	if _, err := r.ApplyConfig(ctx, []byte("x: 1\n")); err != nil {
		t.Error(err)
	}
	me := userName(t)
	want := []string{
		"set app1/udp/53 check for 1m0s by " + me,
		"inspect web1 120 by " + me,
		"listed nc on suspect as operator",
		"listed /bin/x on malicious as import",
		"applied 5 bytes",
	}
	if diff := cmp.Diff(want, r.fake.Calls()); diff != "" {
		t.Errorf("the backend saw (-want +got):\n%s", diff)
	}
}

func TestClient_AnImportIsWholeOrNotAtAll(t *testing.T) {
	r := serve(t, nil)
	err := r.ImportListEntries(t.Context(), []api.ListEntry{{List: "suspect", Name: "a"}, {List: "suspect", Name: "b", VM: "nope"}})
	if !errors.Is(err, api.ErrNotFound) {
		t.Errorf("error %v, want not found", err)
	}
	if entries, _ := r.Lists(t.Context()); len(entries) != 2 {
		t.Errorf("%d entries, want the 2 of before", len(entries))
	}
}

func TestClient_ExplainsThatNoDaemonAnswers(t *testing.T) {
	dir := shortDir(t)
	dead := filepath.Join(dir, "dead")
	listener, err := net.ListenUnix("unix", &net.UnixAddr{Name: dead})
	if err != nil {
		t.Fatal(err)
	}
	listener.SetUnlinkOnClose(false)
	_ = listener.Close()
	for path, want := range map[string]string{
		filepath.Join(dir, "none"): "systemctl start gatewayd",
		dead:                       "systemctl status gatewayd",
	} {
		_, err := api.NewClient(path).Status(t.Context())
		if !errors.Is(err, api.ErrUnreachable) || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want unreachable with %s and %q", err, path, want)
		}
	}
}

func TestClient_GivesUpWithItsContext(t *testing.T) {
	r := serve(t, nil)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := r.Status(ctx); !errors.Is(err, context.Canceled) || errors.Is(err, api.ErrUnreachable) {
		t.Errorf("error %v, want canceled and not unreachable", err)
	}
}

func TestClient_NamesAnAnswerThatIsNotTheDaemons(t *testing.T) {
	path := filepath.Join(shortDir(t), "s")
	listener, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			buffer := make([]byte, 4096)
			_, _ = conn.Read(buffer)
			_, _ = conn.Write([]byte("HTTP/1.1 502 Bad Gateway\r\nContent-Length: 3\r\n\r\nno\n"))
			_ = conn.Close()
		}
	}()
	if _, err := api.NewClient(path).VMs(t.Context()); err == nil || !strings.Contains(err.Error(), "502 Bad Gateway") {
		t.Errorf("error %v does not name the status", err)
	}
}
