package api

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"runtime/debug"
	"time"
)

const (
	maxBody      = 4 << 20 // a configuration with thousands of VMs is below 2 MiB
	bodyTimeout  = 10 * time.Second
	callTimeout  = 60 * time.Second // a sweep over a large guest takes seconds
	writeTimeout = 10 * time.Second // until a stalled reader is given up
)

// call is one request of a peer that may make it.
type call struct {
	*http.Request
	w    http.ResponseWriter
	peer peer
}

// handle registers a call that has one JSON answer (nil: none). What the
// handler is given is checked by it before the Backend sees it.
func (s *Server) handle(pattern string, handler func(context.Context, *call) (any, error)) {
	s.mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), callTimeout)
		defer cancel()
		answer, err := handler(ctx, &call{r, w, peerOf(ctx)})
		if err != nil {
			s.fail(w, r, err)
			return
		}
		s.answer(w, http.StatusOK, answer)
	})
}

// ServeHTTP lets allowed peers through to the calls there are; a call that
// panics costs its caller the answer and nobody else anything.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	defer func() {
		if cause := recover(); cause != nil {
			s.Log.Error("call panicked", "call", r.Pattern, "panic", cause, "stack", string(debug.Stack()))
			s.answer(w, http.StatusInternalServerError, &Error{
				Message: "the daemon failed on this call", Hint: "its log says where: please report it"})
		}
	}()
	if p := peerOf(r.Context()); p.refuse != nil {
		s.Log.Warn("refused a peer", "user", p.name, "pid", p.pid)
		s.Refused("peer")
		s.answer(w, http.StatusForbidden, &Error{Message: p.refuse.Error(), Hint: "use sudo, or ask for membership"})
		return
	}
	if _, pattern := s.mux.Handler(r); pattern == "" {
		s.Refused("unknown")
		// Not 404, which says that the thing asked about is not there.
		s.answer(w, http.StatusNotImplemented, &Error{
			Message: fmt.Sprintf("the daemon knows no call %s %s", r.Method, r.URL.Path),
			Hint:    "client and daemon may be of different versions: compare with \"gatewayd version\" and \"gatewayd status\""})
		return
	}
	s.mux.ServeHTTP(w, r)
}

// fail tells the client of an error, and counts calls that were not understood.
func (s *Server) fail(w http.ResponseWriter, r *http.Request, err error) {
	e := asError(err)
	switch {
	case e.Status == http.StatusRequestEntityTooLarge:
		s.Refused("oversized")
	case errors.Is(err, errMalformed):
		s.Refused("malformed")
	case e.Status == http.StatusInternalServerError:
		s.Log.Error("call failed", "call", r.Pattern, "error", err)
	}
	s.answer(w, e.Status, e)
}

// answer writes the whole answer or, if it has no JSON form, an error.
func (s *Server) answer(w http.ResponseWriter, status int, answer any) {
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(s.stall))
	if answer == nil {
		w.WriteHeader(http.StatusNoContent)
		return
	}
	body, err := json.Marshal(answer)
	if err != nil {
		s.Log.Error("answer has no JSON form", "type", fmt.Sprintf("%T", answer), "error", err)
		status, body = http.StatusInternalServerError, []byte(`{"error":"the daemon cannot express its answer","hint":"its log says why: please report it"}`)
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(body) // a client that is gone is its own loss
}

// errMalformed marks a body that was refused before its meaning was looked at.
var errMalformed = fmt.Errorf("%w: malformed request", ErrInvalid)

// body reads the request's whole body, bounded in size and time.
func (c *call) body() ([]byte, error) {
	rc := http.NewResponseController(c.w)
	_ = rc.SetReadDeadline(time.Now().Add(bodyTimeout))
	b, err := io.ReadAll(http.MaxBytesReader(c.w, c.Body, maxBody))
	// net/http goes on reading to notice when the client leaves, and would take
	// the deadline for that.
	_ = rc.SetReadDeadline(time.Time{})
	if _, ok := errors.AsType[*http.MaxBytesError](err); ok {
		return nil, &Error{Status: http.StatusRequestEntityTooLarge,
			Message: fmt.Sprintf("cannot take the request: it is larger than %d MiB", maxBody>>20), Hint: "split it"}
	}
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errMalformed, err)
	}
	return b, nil
}

// decode reads the body as exactly one JSON value of the type of v.
func (c *call) decode(v any) error {
	b, err := c.body()
	if err != nil {
		return err
	}
	return decodeStrict(b, v)
}
