package remote_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/vmgate/vmgate/pkg/vmi"
	"github.com/vmgate/vmgate/pkg/vmi/remote"
)

// fakeGuest answers by the function, and says what it was asked.
type fakeGuest struct {
	mu    sync.Mutex
	asked []string
	do    func(ctx context.Context) error
}

func (g *fakeGuest) ask(ctx context.Context, format string, args ...any) error {
	g.mu.Lock()
	g.asked = append(g.asked, fmt.Sprintf(format, args...))
	do := g.do
	g.mu.Unlock()
	if do == nil {
		return nil
	}
	return do(ctx)
}

var web = vmi.Process{PID: 42, Start: 1<<63 + 1, Name: "w\x00e\xffb\u2028", Path: "/bin/<web>", Args: []string{"a", ""}, Views: []string{"tasks"}, Hidden: true}

func (g *fakeGuest) OS() string { return "Linux 6.1 <x>" }
func (g *fakeGuest) Owners(ctx context.Context, q vmi.Query) (vmi.Answer, error) {
	return vmi.Answer{Owners: []vmi.Process{web}, Verified: "twice", ReadAt: time.Unix(100, 0), Past: []vmi.PastOwner{{Process: web, Seen: time.Unix(93, 0)}}}, g.ask(ctx, "owners %+v", q)
}
func (g *fakeGuest) Processes(ctx context.Context) ([]vmi.Process, error) {
	return []vmi.Process{web}, g.ask(ctx, "processes")
}
func (g *fakeGuest) Sockets(ctx context.Context) ([]vmi.Socket, error) {
	return []vmi.Socket{{Proto: 6, Local: netip.MustParseAddrPort("[::1]:80"), PIDs: []uint32{42}}}, g.ask(ctx, "sockets")
}
func (g *fakeGuest) Alive(ctx context.Context, pid uint32, start uint64) (bool, error) {
	return true, g.ask(ctx, "alive %d %d", pid, start)
}
func (g *fakeGuest) Modules(ctx context.Context) ([]vmi.Module, error) {
	return []vmi.Module{{Name: "nf", Views: []string{"list"}}}, g.ask(ctx, "modules")
}
func (g *fakeGuest) Sweep(ctx context.Context) error { return g.ask(ctx, "sweep") }
func (g *fakeGuest) Findings(ctx context.Context) ([]vmi.Finding, error) {
	return []vmi.Finding{{Kind: vmi.HiddenModule, Severity: vmi.High}}, g.ask(ctx, "findings")
}
func (g *fakeGuest) Fingerprint(ctx context.Context, pid uint32, start uint64) (vmi.Fingerprint, error) {
	return vmi.Fingerprint{PID: pid, Resident: []vmi.PageRun{{First: 1, Count: 2}}}, g.ask(ctx, "fingerprint %d %d", pid, start)
}

// backend has one guest, app1 for gw1.
type backend struct {
	mu      sync.Mutex
	guest   *fakeGuest
	session string
	err     error
	changed int
}

func (b *backend) Guest(client, vm string) (vmi.Guest, string, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if client != "gw1.test" || vm != "app1" && vm != "a/b c" {
		return nil, "", fmt.Errorf("%w: %s", remote.ErrUnknownVM, vm)
	}
	return b.guest, b.session, b.err
}

func (b *backend) Changed(string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.changed++
}

// world is a server and who there is.
type world struct {
	*backend
	*authority
	address string
	gw1     remote.Files
	log     *safeBuffer
}

type safeBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *safeBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}
func (s *safeBuffer) String() string { s.mu.Lock(); defer s.mu.Unlock(); return s.b.String() }

func serve(t testing.TB) *world {
	t.Helper()
	w := &world{backend: &backend{guest: &fakeGuest{}, session: "one"}, authority: newAuthority(t), log: &safeBuffer{}}
	w.gw1 = w.issue("gw1", x509.ExtKeyUsageClientAuth, time.Hour, "other.test", "gw1.test")
	files := w.issue("inspector", x509.ExtKeyUsageServerAuth, time.Hour, "localhost")
	server, err := remote.NewServer(w.backend, files, []string{"gw1.test", "gw2.test"}, slog.New(slog.NewTextHandler(w.log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	_, port, _ := net.SplitHostPort(listener.Addr().String())
	w.address = "localhost:" + port
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- server.Serve(ctx, listener) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return w
}

func (w *world) client(files remote.Files) *remote.Client {
	w.t.Helper()
	config, err := remote.ClientTLS(files)
	if err != nil {
		w.t.Fatal(err)
	}
	c := remote.NewClient(w.address, config)
	w.t.Cleanup(c.Close)
	return c
}

func (w *world) open() *remote.Guest {
	w.t.Helper()
	g, err := w.client(w.gw1).Open(w.t.Context(), "app1")
	if err != nil {
		w.t.Fatal(err)
	}
	return g
}

func TestGuest_CarriesEverything(t *testing.T) {
	w := serve(t)
	g := w.open()
	if g.OS() != "Linux 6.1 <x>" {
		t.Errorf("OS %q", g.OS())
	}
	ctx, query := t.Context(), vmi.Query{Proto: 17, Local: netip.MustParseAddrPort("[2001:db8::1]:53"), Remote: netip.MustParseAddrPort("192.0.2.1:9"), NetNS: 4026531840}
	asked := time.Now()
	answer, err := g.Owners(ctx, query)
	if err != nil {
		t.Fatal(err)
	}
	if answer.ReadAt.Before(asked) || answer.ReadAt.After(time.Now()) {
		t.Errorf("read at %v, by another clock", answer.ReadAt)
	}
	if len(answer.Past) != 1 || answer.ReadAt.Sub(answer.Past[0].Seen) != 7*time.Second {
		t.Errorf("seen 7 seconds before became %+v, read at %v", answer.Past, answer.ReadAt)
	}
	direct := &fakeGuest{}
	check := func(what string, got, want any, err error) {
		t.Helper()
		if diff := cmp.Diff(want, got, cmpopts.EquateComparable(netip.AddrPort{})); err != nil || diff != "" {
			t.Errorf("%s: %v (-sent +got):\n%s", what, err, diff)
		}
	}
	sent := web
	sent.Name = "w\x00e\ufffdb\u2028" // JSON has no bytes that are not UTF-8
	check("owners", answer.Owners, []vmi.Process{sent}, nil)
	list, err := g.Processes(ctx)
	check("processes", list, []vmi.Process{sent}, err)
	sockets, err := g.Sockets(ctx)
	wantSockets, _ := direct.Sockets(ctx)
	check("sockets", sockets, wantSockets, err)
	findings, err := g.Findings(ctx)
	wantFindings, _ := direct.Findings(ctx)
	check("findings", findings, wantFindings, err)
	alive, err := g.Alive(ctx, 42, 1<<63+1)
	check("alive", alive, true, err)
	f, err := g.Fingerprint(ctx, 42, 7)
	wantF, _ := direct.Fingerprint(ctx, 42, 7)
	check("fingerprint", f, wantF, err)
	modules, err := g.Modules(ctx)
	wantModules, _ := direct.Modules(ctx)
	check("modules", modules, wantModules, err)
	if err := g.Sweep(ctx); err != nil {
		t.Error(err)
	}
	if _, err := w.client(w.gw1).Open(ctx, "a/b c"); err != nil {
		t.Errorf("a VM with a slash and a blank in its name: %v", err)
	}
	want := []string{fmt.Sprintf("owners %+v", query), "processes", "sockets", "findings", fmt.Sprintf("alive 42 %d", uint64(1<<63+1)), "fingerprint 42 7", "modules", "sweep"}
	check("what was asked", w.guest.asked, want, nil)
}

func TestGuest_CarriesErrors(t *testing.T) {
	w := serve(t)
	g := w.open()
	for _, sentinel := range []error{
		vmi.ErrNotReady, vmi.ErrNotUnderstood, vmi.ErrChanged, vmi.ErrUnstable, vmi.ErrNoProcess, context.DeadlineExceeded, errors.New("anything"),
	} {
		w.guest.do = func(context.Context) error { return fmt.Errorf("cannot do it: %w", sentinel) }
		_, err := g.Owners(t.Context(), vmi.Query{})
		if err == nil || !strings.Contains(err.Error(), "cannot do it: "+sentinel.Error()) || errors.Is(err, sentinel) != (sentinel.Error() != "anything") {
			t.Errorf("%v became %v", sentinel, err)
		}
	}
	if w.changed != 1 {
		t.Errorf("the backend was told %d times that the guest has changed", w.changed)
	}
	w.guest.do = func(context.Context) error { return errors.New(strings.Repeat("\x00", 1<<20)) }
	if _, err := g.Processes(t.Context()); err == nil || len(err.Error()) > 64<<10 {
		t.Errorf("a long error became one of %d bytes", len(fmt.Sprint(err)))
	}
	w.backend.err = vmi.ErrNotReady
	if _, err := w.client(w.gw1).Open(t.Context(), "app1"); !errors.Is(err, vmi.ErrNotReady) {
		t.Errorf("%v", err)
	}
}

func TestGuest_IsAnotherAfterItWasDiscoveredAnew(t *testing.T) {
	w := serve(t)
	g := w.open()
	if err := g.Check(t.Context()); err != nil {
		t.Error(err)
	}
	w.mu.Lock()
	w.session = "two"
	w.mu.Unlock()
	if err := g.Check(t.Context()); !errors.Is(err, vmi.ErrChanged) {
		t.Errorf("%v", err)
	}
	if _, err := g.Alive(t.Context(), 1, 2); !errors.Is(err, vmi.ErrChanged) {
		t.Errorf("%v", err)
	}
	if len(w.guest.asked) != 0 {
		t.Errorf("the guest was asked %q", w.guest.asked)
	}
}

func TestServer_RefusesStrangers(t *testing.T) {
	w, stranger := serve(t), newAuthority(t)
	otherCA := stranger.issue("gw1", x509.ExtKeyUsageClientAuth, time.Hour, "gw1.test")
	otherCA.CA = w.gw1.CA
	misled := w.gw1
	misled.CA = otherCA.Certificate
	misled.CA = stranger.issue("x", x509.ExtKeyUsageClientAuth, time.Hour).CA
	for name, files := range map[string]remote.Files{
		"signed by another authority":  otherCA,
		"not a client of ours":         w.issue("gw3", x509.ExtKeyUsageClientAuth, time.Hour, "gw3.test"),
		"no name at all":               w.issue("none", x509.ExtKeyUsageClientAuth, time.Hour),
		"expired":                      w.issue("old", x509.ExtKeyUsageClientAuth, -time.Minute, "gw1.test"),
		"a server's certificate":       w.issue("server", x509.ExtKeyUsageServerAuth, time.Hour, "gw1.test"),
		"who trusts another authority": misled,
	} {
		if _, err := w.client(files).Open(t.Context(), "app1"); err == nil || errors.Is(err, remote.ErrUnknownVM) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := w.client(w.issue("gw2", x509.ExtKeyUsageClientAuth, time.Hour, "gw2.test")).Open(t.Context(), "app1"); !errors.Is(err, remote.ErrUnknownVM) {
		t.Errorf("another client's VM: %v", err)
	}
	if _, err := w.client(w.gw1).Open(t.Context(), "app2"); !errors.Is(err, remote.ErrUnknownVM) {
		t.Errorf("a VM that is not there: %v", err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(w.cert)
	for name, config := range map[string]*tls.Config{
		"no certificate": {RootCAs: pool, NextProtos: []string{"h2"}},
		"TLS 1.2":        {RootCAs: pool, MaxVersion: tls.VersionTLS12, NextProtos: []string{"h2"}},
	} {
		conn, err := tls.Dial("tcp", w.address, config)
		if err == nil { // in TLS 1.3 the client learns of it with the first read
			_, err = conn.Read(make([]byte, 1))
			conn.Close()
		}
		if err == nil || errors.Is(err, io.EOF) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if w.guest.asked != nil {
		t.Errorf("the guest was asked %q", w.guest.asked)
	}
}

// An inspector that is not who it should be gets no question.
func TestClient_RefusesAFalseInspector(t *testing.T) {
	w := serve(t)
	host, port, _ := net.SplitHostPort(w.address)
	config, err := remote.ClientTLS(w.gw1)
	if err != nil {
		t.Fatal(err)
	}
	if host != "localhost" {
		t.Fatal(host)
	}
	c := remote.NewClient("127.0.0.1:"+port, config)
	defer c.Close()
	if _, err := c.Open(t.Context(), "app1"); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("an inspector whose certificate is for another host: %v", err)
	}
}

func TestServer_RefusesWhatItDoesNotUnderstand(t *testing.T) {
	w := serve(t)
	config, err := remote.ClientTLS(w.gw1)
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: config, ForceAttemptHTTP2: true}}
	defer client.CloseIdleConnections()
	for _, c := range []struct {
		name, verb, path, body string
		header                 map[string]string
		status                 int
	}{
		{"as it should be", "POST", "/v1/app1/alive", `{"pid":1,"start_ns":2}`, nil, 200},
		{"another verb", "GET", "/v1/app1/alive", "", nil, 400},
		{"another path", "POST", "/v2/app1/alive", "{}", nil, 400},
		{"a longer path", "POST", "/v1/app1/alive/x", "{}", nil, 400},
		{"no VM", "POST", "/v1//alive", "{}", nil, 400},
		{"another method", "POST", "/v1/app1/write", "{}", nil, 400},
		{"no JSON", "POST", "/v1/app1/alive", "pid", nil, 400},
		{"nothing", "POST", "/v1/app1/alive", "", nil, 400},
		{"more than one", "POST", "/v1/app1/alive", `{"pid":1}{"pid":2}`, nil, 400},
		{"an argument that is not known", "POST", "/v1/app1/owners", `{"Proto":6,"Container":"x"}`, nil, 400},
		{"another type", "POST", "/v1/app1/owners", `{"Proto":256}`, nil, 400},
		{"too much", "POST", "/v1/app1/owners", `{"Proto":6` + strings.Repeat(" ", 1<<20) + "}", nil, 400},
		{"no time", "POST", "/v1/app1/alive", `{}`, map[string]string{"Vmgate-Timeout": "-1"}, 400},
		{"another session", "POST", "/v1/app1/alive", `{}`, map[string]string{"Vmgate-Session": "two"}, 409},
	} {
		request, err := http.NewRequestWithContext(t.Context(), c.verb, "https://"+w.address+c.path, strings.NewReader(c.body))
		if err != nil {
			t.Fatal(err)
		}
		request.Header.Set("Vmgate-Session", "one")
		for key, value := range c.header {
			request.Header.Set(key, value)
		}
		answer, err := client.Do(request)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		body, _ := io.ReadAll(answer.Body)
		answer.Body.Close()
		if answer.StatusCode != c.status {
			t.Errorf("%s: status %d (%s), want %d", c.name, answer.StatusCode, body, c.status)
		}
	}
}

// The caller's deadline ends the work at the other end too.
func TestGuest_DeadlineTravels(t *testing.T) {
	w := serve(t)
	g := w.open()
	ended := make(chan time.Duration, 1)
	w.guest.do = func(ctx context.Context) error {
		begin := time.Now()
		deadline, _ := ctx.Deadline()
		<-ctx.Done()
		ended <- deadline.Sub(begin)
		return ctx.Err()
	}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	begin := time.Now()
	if _, err := g.Owners(ctx, vmi.Query{}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%v", err)
	}
	if took := time.Since(begin); took > 5*time.Second {
		t.Errorf("it took %v", took)
	}
	if left := <-ended; left > 301*time.Millisecond {
		t.Errorf("the other end had %v", left)
	}
	// One that gives up early ends it early.
	ctx, cancel = context.WithCancel(t.Context())
	time.AfterFunc(20*time.Millisecond, cancel)
	if _, err := g.Owners(ctx, vmi.Query{}); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	<-ended
}

func TestServer_BoundsAClient(t *testing.T) {
	w := serve(t)
	g := w.open()
	busy := 0
	for range 4000 {
		if _, err := g.Alive(t.Context(), 1, 1); errors.Is(err, remote.ErrBusy) {
			busy++
		} else if err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("%d of 4000 calls were too many", busy)
	// Sweeps: two at once, and others wait for them.
	running := make(chan struct{}, 8)
	release := make(chan struct{})
	w.guest.do = func(context.Context) error { running <- struct{}{}; <-release; return nil }
	var wait sync.WaitGroup
	for range 4 {
		wait.Go(func() {
			for {
				_, err := g.Processes(t.Context())
				if !errors.Is(err, remote.ErrBusy) {
					if err != nil {
						t.Error(err)
					}
					return
				}
			}
		})
	}
	<-running
	<-running
	select {
	case <-running:
		t.Error("three sweeps at once")
	case <-time.After(100 * time.Millisecond):
	}
	close(release)
	wait.Wait()
}

func TestGuest_AnswerIsBounded(t *testing.T) {
	w := serve(t)
	g := w.open()
	was := web
	defer func() { web = was }()
	web.Args = []string{strings.Repeat("a", 2<<20)}
	if _, err := g.Owners(t.Context(), vmi.Query{}); err == nil || !strings.Contains(err.Error(), "cannot send an answer of") {
		t.Errorf("%v", err)
	}
	if list, err := g.Processes(t.Context()); err != nil || len(list) != 1 {
		t.Errorf("%d processes, %v", len(list), err)
	}
}

// Renewed files are used without a restart.
func TestServer_TakesRenewedCertificates(t *testing.T) {
	w := serve(t)
	w.open()
	w.issue("inspector", x509.ExtKeyUsageServerAuth, time.Hour, "elsewhere.test")
	if _, err := w.client(w.gw1).Open(t.Context(), "app1"); err == nil || !strings.Contains(err.Error(), "elsewhere.test") {
		t.Errorf("%v", err)
	}
}
