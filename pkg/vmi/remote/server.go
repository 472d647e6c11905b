package remote

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"

	"golang.org/x/net/netutil"
	"golang.org/x/time/rate"

	"github.com/vmgate/vmgate/pkg/vmi"
)

// Limits of what one client can make the server do.
const (
	maxConnections = 1024 // of all clients
	maxAtOnce      = 64   // look-ups
	maxHeavy       = 2    // sweeps over a whole guest
	perSecond      = 2000 // calls …
	burst          = 1000 // … or so many at once
)

// Backend is what a server serves.
type Backend interface {
	// Guest returns a VM's guest for a client, named by a DNS name of its
	// certificate, and a session that names the guest as it is now. The error is
	// ErrUnknownVM for whatever the client may not look into.
	Guest(client, vm string) (guest vmi.Guest, session string, err error)
	// Changed tells that the guest, which Guest has given, runs another kernel.
	Changed(vm string)
}

// Server answers calls.
type Server struct {
	backend Backend
	tls     *tls.Config
	log     *slog.Logger
	clients map[string]*client
}

// client is what a server knows of a client.
type client struct {
	atOnce, heavy chan struct{}
	rate          *rate.Limiter
}

// NewServer makes a server for the clients that are named: a certificate that is
// for none of these DNS names is refused in the handshake.
func NewServer(backend Backend, files Files, clients []string, log *slog.Logger) (*Server, error) {
	s := &Server{backend: backend, log: log, clients: make(map[string]*client, len(clients))}
	for _, name := range clients {
		s.clients[name] = &client{make(chan struct{}, maxAtOnce), make(chan struct{}, maxHeavy), rate.NewLimiter(perSecond, burst)}
	}
	var err error
	s.tls, err = serverTLS(files, func(state tls.ConnectionState) error {
		_, err := s.nameOf(&state)
		return err
	})
	return s, err
}

// Serve answers calls on a listener, which it closes, until ctx is done.
func (s *Server) Serve(ctx context.Context, listener net.Listener) error {
	var protocols http.Protocols
	protocols.SetHTTP2(true)
	server := &http.Server{
		Handler:           s,
		TLSConfig:         s.tls,
		Protocols:         &protocols,
		HTTP2:             &http.HTTP2Config{MaxConcurrentStreams: 2 * maxAtOnce, SendPingTimeout: 15 * time.Second, PingTimeout: 15 * time.Second},
		ReadHeaderTimeout: 5 * time.Second, // also of the handshake
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      maxTimeout + 10*time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    maxRequest,
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelInfo),
		BaseContext:       func(net.Listener) context.Context { return ctx },
	}
	var wait sync.WaitGroup
	defer wait.Wait()
	stopped := make(chan struct{})
	defer close(stopped)
	wait.Go(func() {
		select {
		case <-ctx.Done():
		case <-stopped:
		}
		_ = server.Close() // what is under way ends with ctx anyway
	})
	err := server.ServeTLS(netutil.LimitListener(listener, maxConnections), "", "")
	if !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("cannot serve gateways: %w", err)
	}
	return nil
}

// nameOf finds the one of our clients that a certificate is for.
func (s *Server) nameOf(state *tls.ConnectionState) (string, error) {
	if state == nil || len(state.VerifiedChains) == 0 {
		return "", errors.New("no certificate that our authority has signed")
	}
	names := state.VerifiedChains[0][0].DNSNames
	for _, name := range names {
		if s.clients[name] != nil {
			return name, nil
		}
	}
	return "", fmt.Errorf("the certificate is for %.10q, none of which is a client of ours", names)
}

// ServeHTTP answers one call.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	name, err := s.nameOf(r.TLS)
	if err != nil {
		s.refuse(w, fmt.Errorf("%w: %w", ErrInvalid, err))
		return
	}
	body, err := s.answer(name, w, r)
	if err != nil {
		s.log.Debug("call not answered", "client", name, "path", r.URL.Path, "error", err)
		s.refuse(w, err)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(body) // a caller who has gone away has nobody to be told
}

func (s *Server) refuse(w http.ResponseWriter, err error) {
	status, f := encodeError(err)
	body, err := json.Marshal(f)
	if err != nil {
		panic("remote: " + err.Error()) // two strings
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(body)
}

// answer works one call out, by its deadline and within the client's limits.
func (s *Server) answer(name string, w http.ResponseWriter, r *http.Request) ([]byte, error) {
	vm, method, ok := parsePath(r)
	if !ok {
		return nil, fmt.Errorf("%w: %s %.200q", ErrInvalid, r.Method, r.URL.Path)
	}
	ctx, cancel, err := bounded(r)
	if err != nil {
		return nil, err
	}
	defer cancel()
	c := s.clients[name]
	if !c.rate.Allow() {
		return nil, fmt.Errorf("%w: more than %d calls a second", ErrBusy, perSecond)
	}
	if err := c.enter(ctx, c.atOnce); err != nil {
		return nil, err
	}
	defer c.leave(c.atOnce)
	guest, session, err := s.backend.Guest(name, vm)
	if err != nil {
		return nil, err
	}
	if method == methodOpen {
		return json.Marshal(opening{OS: guest.OS(), Session: session})
	}
	if got := r.Header.Get(sessionHeader); got != session {
		return nil, fmt.Errorf("%w: it has been discovered anew", vmi.ErrChanged)
	}
	body, err := s.call(ctx, c, guest, method, http.MaxBytesReader(w, r.Body, maxRequest+1))
	if errors.Is(err, vmi.ErrChanged) {
		s.backend.Changed(vm)
	}
	return body, err
}

// call asks the guest.
func (s *Server) call(ctx context.Context, c *client, guest vmi.Guest, name string, arguments interface{ Read([]byte) (int, error) }) ([]byte, error) {
	m, known := methods[name]
	if !known {
		return nil, fmt.Errorf("%w: there is no %.40q", ErrInvalid, name)
	}
	if m.heavy {
		if err := c.enter(ctx, c.heavy); err != nil {
			return nil, err
		}
		defer c.leave(c.heavy)
	}
	result, err := m.answer(ctx, guest, arguments)
	if err != nil {
		return nil, err
	}
	body, err := json.Marshal(result)
	if err == nil && len(body) > m.limit {
		err = fmt.Errorf("cannot send an answer of %d bytes: at most %d", len(body), m.limit)
	}
	return body, err
}

// enter waits for a place.
func (c *client) enter(ctx context.Context, places chan struct{}) error {
	select {
	case places <- struct{}{}:
		return nil
	default:
	}
	select {
	case places <- struct{}{}:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("%w: %d calls at once", ErrBusy, cap(places))
	}
}

func (c *client) leave(places chan struct{}) { <-places }

// parsePath takes /v1/VM/METHOD apart; VM may hold escaped slashes.
func parsePath(r *http.Request) (vm, method string, ok bool) {
	return splitPath(r.Method, r.URL.EscapedPath())
}

// bounded gives the call's context: the caller's deadline has travelled as a
// duration, since clocks differ.
func bounded(r *http.Request) (context.Context, context.CancelFunc, error) {
	timeout := maxTimeout
	if text := r.Header.Get(timeoutHeader); text != "" {
		ms, err := strconv.ParseUint(text, 10, 32)
		if err != nil || ms == 0 {
			return nil, nil, fmt.Errorf("%w: %s is %.20q", ErrInvalid, timeoutHeader, text)
		}
		timeout = min(timeout, time.Duration(ms)*time.Millisecond)
	}
	ctx, cancel := context.WithTimeout(r.Context(), timeout)
	return ctx, cancel, nil
}
