package snort

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// runExternal takes alerts until the test ends.
func runExternal(t testing.TB, c ExternalConfig) *running {
	t.Helper()
	c.Log = testLog(t)
	e, err := NewExternal(c)
	must(t, err)
	ctx, cancel := context.WithCancel(context.Background())
	r := &running{external: e, t: t, states: make(chan State, 10), alerts: make(chan Alert, 100000)}
	ended := make(chan error, 1)
	go func() {
		ended <- e.Run(ctx, func(s State) { r.states <- s }, func(a Alert) { r.alerts <- a })
	}()
	r.stop = sync.OnceValue(func() error { cancel(); return <-ended })
	t.Cleanup(func() {
		if err := r.stop(); err != nil {
			t.Error(err)
		}
	})
	select {
	case s := <-r.states:
		if s.Phase != PhaseUp || s.PID != 0 {
			t.Fatalf("%+v", s)
		}
	case err := <-ended:
		ended <- err
		t.Fatal(err)
	case <-time.After(10 * time.Second):
		t.Fatal("the sources are not opened")
	}
	return r
}

// authority signs certificates.
type authority struct {
	t    testing.TB
	dir  string
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	path string
}

var serial = func() func() *big.Int {
	var mu sync.Mutex
	n := int64(0)
	return func() *big.Int { mu.Lock(); defer mu.Unlock(); n++; return big.NewInt(n) }
}()

func newAuthority(t testing.TB, name string) *authority {
	t.Helper()
	a := &authority{t: t, dir: t.TempDir()}
	cert := &x509.Certificate{SerialNumber: serial(), Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour)}
	var err error
	a.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	der, err := x509.CreateCertificate(rand.Reader, cert, cert, &a.key.PublicKey, a.key)
	must(t, err)
	a.cert, err = x509.ParseCertificate(der)
	must(t, err)
	a.path = a.write("ca.pem", "CERTIFICATE", der)
	return a
}

func (a *authority) write(name, kind string, der []byte) string {
	path := filepath.Join(a.dir, name)
	must(a.t, os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600))
	return path
}

// issue signs a certificate and returns the paths of it and of its key.
func (a *authority) issue(name string, until time.Time) (cert, key string) {
	a.t.Helper()
	template := &x509.Certificate{SerialNumber: serial(), DNSNames: []string{name}, NotBefore: time.Now().Add(-2 * time.Hour), NotAfter: until,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth}}
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(a.t, err)
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, &private.PublicKey, a.key)
	must(a.t, err)
	secret, err := x509.MarshalPKCS8PrivateKey(private)
	must(a.t, err)
	return a.write(name+".pem", "CERTIFICATE", der), a.write(name+".key", "PRIVATE KEY", secret)
}

func (a *authority) pair(name string, until time.Time) tls.Certificate {
	a.t.Helper()
	pair, err := tls.LoadX509KeyPair(a.issue(name, until))
	must(a.t, err)
	return pair
}

// tlsFor is a listener on a free port that expects ids1 and ids2.
func tlsFor(t testing.TB, a *authority) *TLSConfig {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	must(t, l.Close())
	c := &TLSConfig{Listen: l.Addr().String(), Authority: a.path, Names: []string{"IDS1", "ids2"}}
	c.Certificate, c.Key = a.issue("gateway", time.Now().Add(time.Hour))
	return c
}

// send connects as a sender; the error is that of the handshake, or of the refusal.
func send(t testing.TB, to *TLSConfig, a *authority, change func(*tls.Config)) (*tls.Conn, error) {
	t.Helper()
	roots := x509.NewCertPool()
	roots.AddCert(a.cert)
	config := &tls.Config{RootCAs: roots, ServerName: "gateway"}
	change(config)
	conn, err := tls.DialWithDialer(&net.Dialer{Timeout: 10 * time.Second}, "tcp", to.Listen, config)
	if err != nil {
		return nil, err
	}
	t.Cleanup(func() { conn.Close() })
	// With TLS 1.3 the client is ready before it is judged: what it then reads tells.
	must(t, conn.SetReadDeadline(time.Now().Add(300*time.Millisecond)))
	if _, err := conn.Read(make([]byte, 1)); !isTimeout(err) {
		return nil, fmt.Errorf("closed: %w", err)
	}
	return conn, nil
}

func isTimeout(err error) bool {
	n, ok := err.(net.Error)
	return ok && n.Timeout()
}

func TestTLS_OnlyExpectedSendersAreHeard(t *testing.T) {
	ours, other := newAuthority(t, "ours"), newAuthority(t, "other")
	c := tlsFor(t, ours)
	r := runExternal(t, ExternalConfig{TLS: c})
	if s := r.external.State(); s.Detail == "" {
		t.Error("nobody is connected, and it does not say so")
	}
	later := time.Now().Add(time.Hour)
	for name, change := range map[string]func(*tls.Config){
		"nobody":            func(*tls.Config) {},
		"another name":      func(c *tls.Config) { c.Certificates = []tls.Certificate{ours.pair("ids3", later)} },
		"another authority": func(c *tls.Config) { c.Certificates = []tls.Certificate{other.pair("ids1", later)} },
		"expired":           func(c *tls.Config) { c.Certificates = []tls.Certificate{ours.pair("ids1", time.Now().Add(-time.Hour))} },
		"TLS 1.2": func(c *tls.Config) {
			c.Certificates, c.MaxVersion = []tls.Certificate{ours.pair("ids1", later)}, tls.VersionTLS12
		},
	} {
		if _, err := send(t, c, ours, change); err == nil {
			t.Errorf("%s was heard", name)
		}
	}
	plain, err := net.Dial("tcp", c.Listen)
	must(t, err)
	defer plain.Close()
	_, _ = io.WriteString(plain, recorded(t, suricata{})+"\n")

	conn, err := send(t, c, ours, func(c *tls.Config) { c.Certificates = []tls.Certificate{ours.pair("ids1", later)} })
	must(t, err)
	line := recorded(t, suricata{}) + "\n"
	_, err = io.WriteString(conn, "garbage\n"+line[:50])
	must(t, err)
	_, err = io.WriteString(conn, line[50:])
	must(t, err)
	if a, ok := r.alert(10 * time.Second); !ok || a.SID != 1000001 || a.SrcMAC.String() != "b6:c4:6f:97:87:16" {
		t.Fatalf("%v, %+v", ok, a)
	}
	if s := r.external.State(); s.Lines != 2 || s.Malformed != 1 || s.Detail != "" {
		t.Errorf("%+v", s)
	}
}

// TestTLS_ASenderThatMovesReplacesItself: its old machine may never have said that it
// is gone.
func TestTLS_ASenderThatMovesReplacesItself(t *testing.T) {
	ours := newAuthority(t, "ours")
	c := tlsFor(t, ours)
	r := runExternal(t, ExternalConfig{TLS: c})
	connect := func(name string) *tls.Conn {
		conn, err := send(t, c, ours, func(c *tls.Config) {
			c.Certificates = []tls.Certificate{ours.pair(name, time.Now().Add(time.Hour))}
		})
		must(t, err)
		return conn
	}
	first, second := connect("ids1"), connect("ids2")
	moved := connect("ids1")
	must(t, first.SetReadDeadline(time.Now().Add(10*time.Second)))
	if _, err := first.Read(make([]byte, 1)); err == nil || isTimeout(err) {
		t.Errorf("the connection that was replaced: %v", err)
	}
	for _, conn := range []*tls.Conn{second, moved} {
		_, err := io.WriteString(conn, recorded(t, suricata{})+"\n")
		must(t, err)
		if _, ok := r.alert(10 * time.Second); !ok {
			t.Error("an alert did not come through")
		}
	}
	// Renewed files are those that the next connection meets.
	ours.issue("gateway", time.Now().Add(-time.Hour)) // under the same paths
	if _, err := send(t, c, ours, func(c *tls.Config) {
		c.Certificates = []tls.Certificate{ours.pair("ids1", time.Now().Add(time.Hour))}
	}); err == nil {
		t.Error("the certificate of the start is still shown")
	}
}

func TestTLS_ConnectionsAreBounded(t *testing.T) {
	ours := newAuthority(t, "ours")
	c := tlsFor(t, ours)
	runExternal(t, ExternalConfig{TLS: c})
	silent := make([]net.Conn, 0, 3*maxStreams)
	for range 3 * maxStreams { // of those who say nothing
		conn, err := net.Dial("tcp", c.Listen)
		must(t, err)
		defer conn.Close()
		silent = append(silent, conn)
	}
	refused := 0
	for _, conn := range silent {
		must(t, conn.SetReadDeadline(time.Now().Add(200*time.Millisecond)))
		if _, err := conn.Read(make([]byte, 1)); !isTimeout(err) {
			refused++
		}
	}
	if refused != 2*maxStreams {
		t.Errorf("%d of %d were refused", refused, len(silent))
	}
}

// TestExternal_LocalSources: the other ways, with what stands in them before.
func TestExternal_LocalSources(t *testing.T) {
	dir, err := os.MkdirTemp("", "vmgate-ext-")
	must(t, err)
	defer os.RemoveAll(dir)
	at := func(name string) string { return filepath.Join(dir, name) }
	line := recorded(t, snort3{}) + "\n"
	must(t, os.WriteFile(at("lines"), []byte(line+line[:10]), 0o600))
	r := runExternal(t, ExternalConfig{Format: FormatSnort, Socket: at("stream"), File: at("lines"), Datagrams: at("datagrams")})
	one := func(way string) {
		t.Helper()
		if a, ok := r.alert(10 * time.Second); !ok || a.SID != 1000001 {
			t.Errorf("%s: %v, %+v", way, ok, a)
		}
	}
	appendTo := func(name string) {
		f, err := os.OpenFile(at(name), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
		must(t, err)
		_, err = io.WriteString(f, line)
		must(t, err)
		must(t, f.Close())
	}
	conn, err := net.Dial("unix", at("stream"))
	must(t, err)
	_, err = io.WriteString(conn, line)
	must(t, err)
	one("stream")
	must(t, conn.Close())

	datagram, err := net.Dial("unixgram", at("datagrams"))
	must(t, err)
	_, err = datagram.Write(unixsock("m", 1, 1000001, syn(t, 1, 1)))
	must(t, err)
	one("datagram")
	_, err = datagram.Write([]byte("nonsense"))
	must(t, err)
	must(t, datagram.Close())

	appendTo("lines") // behind a line begun: that one is spoilt, as its beginning was not seen
	appendTo("lines")
	one("file")
	must(t, os.Rename(at("lines"), at("lines.1")))
	appendTo("lines")
	one("rotated")
	must(t, os.Truncate(at("lines"), 0))
	appendTo("lines")
	one("truncated")
	must(t, r.stop())
	if entries, _ := os.ReadDir(dir); len(entries) != 2 {
		t.Errorf("left behind: %v", entries)
	}
	if info, err := os.Stat(at("lines")); err != nil || info.Size() != int64(len(line)) {
		t.Errorf("someone else's file was changed: %v, %v", info, err)
	}
}

func TestNewExternal_Refuses(t *testing.T) {
	for name, c := range map[string]ExternalConfig{
		"no source":       {},
		"format":          {File: "/x", Format: "csv"},
		"unstated":        {File: "/x", Unstated: "reject"},
		"long path":       {Socket: "/" + strings.Repeat("x", 108)},
		"no certificates": {TLS: &TLSConfig{Listen: "127.0.0.1:1", Certificate: "/nowhere", Key: "/nowhere", Authority: "/nowhere"}},
	} {
		if _, err := NewExternal(c); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
	path := filepath.Join(t.TempDir(), "file")
	must(t, os.WriteFile(path, nil, 0o600))
	e, err := NewExternal(ExternalConfig{Socket: path})
	must(t, err)
	if err := e.Run(t.Context(), func(State) {}, func(Alert) {}); err == nil {
		t.Error("a file was taken for a socket")
	}
	if _, err := os.Stat(path); err != nil {
		t.Error("and removed")
	}
}

// A sender that is authorised and evil: what it sends is bounded in every way.
func FuzzStream(f *testing.F) {
	line := recorded(f, suricata{})
	f.Add([]byte(line+"\n"+line[:100]), uint8(7))
	f.Add([]byte(strings.Repeat("x", 1000)+"\n{}\n"), uint8(1))
	f.Fuzz(func(t *testing.T, stream []byte, step uint8) {
		in := &intake{log: slog.New(slog.DiscardHandler), queue: make(chan Alert, 10)}
		for _, fm := range []format{suricata{}, snort3{}} {
			s := in.splitter(fm)
			for rest := stream; len(rest) > 0; {
				n := min(len(rest), int(step)+1)
				_, _ = s.Write(rest[:n])
				rest = rest[n:]
			}
			if cap(s.rest) > 4*maxLine {
				t.Errorf("%d bytes are held", cap(s.rest))
			}
		}
		for len(in.queue) > 0 {
			bounded(t, <-in.queue)
		}
	})
}
