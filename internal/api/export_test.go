package api

import (
	"context"
	"net/http"
	"time"
)

// SetStall shortens the time after which a stalled reader is given up.
func (s *Server) SetStall(d time.Duration) { s.stall = d }

// WithPeer makes a request look as if it came over a socket from a peer that
// may call.
func WithPeer(r *http.Request, name string) *http.Request {
	return r.WithContext(context.WithValue(r.Context(), peerKey{}, func() peer { return peer{name: name} }))
}

// The bounds that tests go beyond.
const (
	MaxBody       = maxBody
	MaxMonitors   = maxMonitors
	MaxSocketPath = maxSocketPath
)
