package api

import (
	"encoding/json"
	"fmt"
	"net/http"
	"time"
)

func (s *Server) routeMonitor() {
	s.mux.HandleFunc("GET /v1/monitor", s.monitor)
}

// monitor streams events, a JSON object a line, until the client goes, the
// server stops, or the client has not read for a while.
func (s *Server) monitor(w http.ResponseWriter, r *http.Request) {
	select {
	case s.monitors <- struct{}{}:
		defer func() { <-s.monitors }()
	default:
		s.Refused("busy")
		s.fail(w, r, fmt.Errorf("%w: %d monitors are running already: end one", ErrUnavailable, maxMonitors))
		return
	}
	events, err := s.Backend.Monitor(r.Context())
	if err != nil {
		s.fail(w, r, err)
		return
	}
	rc := http.NewResponseController(w)
	w.Header().Set("Content-Type", "application/jsonl")
	w.WriteHeader(http.StatusOK)
	// The client knows from the header that nothing escapes it from now on.
	if rc.Flush() != nil {
		return
	}
	lines := json.NewEncoder(w)
	for e := range events {
		_ = rc.SetWriteDeadline(time.Now().Add(s.stall))
		if lines.Encode(e) != nil || rc.Flush() != nil {
			return
		}
	}
}
