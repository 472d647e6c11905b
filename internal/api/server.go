package api

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"
)

// Bounds of what one peer can make the server hold or wait for.
const (
	maxHeader     = 16 << 10
	headerTimeout = 5 * time.Second
	idleTimeout   = 60 * time.Second
	stopTimeout   = 2 * time.Second
	maxMonitors   = 32
)

// ServerConfig says where and for whom to serve.
type ServerConfig struct {
	Path    string  // of the socket; its directory must exist
	Group   string  // name of the group whose members may call, besides root and the daemon's own user; empty: none
	Backend Backend // answers the calls
	Log     *slog.Logger
	// Refused, if set, is called for every call that is refused before it reaches
	// the Backend, with a reason fit for a metric's label: peer, unknown,
	// malformed, oversized, busy.
	Refused func(reason string)
}

// Server serves the API on a unix socket that it holds from Listen to the end
// of Serve.
type Server struct {
	ServerConfig
	access   access
	listener *net.UnixListener
	monitors chan struct{} // a slot for each stream
	stall    time.Duration // until a reader that takes nothing is given up
	mux      *http.ServeMux
}

// Listen takes the socket. The socket of a dead daemon is replaced; that of a
// live one is left alone and an error. The caller must call Serve, which
// releases it.
func Listen(config ServerConfig) (*Server, error) {
	access, err := newAccess(config.Group)
	if err != nil {
		return nil, err
	}
	listener, err := listenUnix(config.Path, access.gid)
	if err != nil {
		return nil, err
	}
	if config.Refused == nil {
		config.Refused = func(string) {}
	}
	s := &Server{
		ServerConfig: config,
		access:       access,
		listener:     listener,
		monitors:     make(chan struct{}, maxMonitors),
		stall:        writeTimeout,
		mux:          http.NewServeMux(),
	}
	s.routes()
	return s, nil
}

func (s *Server) routes() {
	s.routeStatus()
	s.routeVMs()
	s.routeVerdicts()
	s.routeFlows()
	s.routeLists()
	s.routePolicy()
	s.routeMeasures()
	s.routeReports()
	s.routeIDS()
	s.routeExplain()
	s.routeMonitor()
}

// Serve answers calls until ctx is done, ends those still running, and removes
// the socket. It returns nil then, after stopTimeout at most.
func (s *Server) Serve(ctx context.Context) error {
	server := &http.Server{
		Handler:           s,
		ReadHeaderTimeout: headerTimeout,
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    maxHeader,
		ErrorLog:          slog.NewLogLogger(s.Log.Handler(), slog.LevelDebug),
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ConnContext:       s.access.withPeer,
	}
	var wait sync.WaitGroup
	defer wait.Wait()
	ended := make(chan struct{})
	defer close(ended)
	wait.Go(func() {
		select {
		case <-ctx.Done():
		case <-ended:
		}
		// The calls' contexts end with ctx, so that what is cut off here ignored that.
		deadline, cancel := context.WithTimeout(context.WithoutCancel(ctx), stopTimeout)
		defer cancel()
		if server.Shutdown(deadline) != nil {
			_ = server.Close()
		}
	})
	if err := server.Serve(s.listener); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("cannot serve %s: %w", s.Path, err)
	}
	return nil
}
