package api

import (
	"context"
	"errors"
	"net/http"
)

// Error is a call that the daemon has answered with an error; errors.Is finds
// the sentinel of its status in it.
type Error struct {
	Status  int    `json:"-"`              // of HTTP
	Message string `json:"error"`          // "cannot X: why"
	Hint    string `json:"hint,omitempty"` // what to do
}

func (e *Error) Error() string { return e.Message }

// Unwrap returns the sentinel of the error's status, nil for none.
func (e *Error) Unwrap() error {
	for _, s := range statuses {
		if s.status == e.Status {
			return s.sentinel
		}
	}
	return nil
}

// statuses pairs each sentinel with its status; the first that fits counts.
var statuses = []struct {
	sentinel error
	status   int
}{
	{ErrNotFound, http.StatusNotFound},
	{ErrInvalid, http.StatusBadRequest},
	{ErrUnavailable, http.StatusServiceUnavailable},
	{context.DeadlineExceeded, http.StatusGatewayTimeout},
}

// asError turns what a handler returned into what the client is told.
func asError(err error) *Error {
	if e, ok := errors.AsType[*Error](err); ok {
		return e
	}
	answer := &Error{Status: http.StatusInternalServerError, Message: err.Error()}
	for _, s := range statuses {
		if errors.Is(err, s.sentinel) {
			answer.Status = s.status
			break
		}
	}
	if h, ok := errors.AsType[*hinted](err); ok && errors.Is(err, h.when) {
		answer.Hint = h.hint
	}
	return answer
}

// hinted carries what to do about an error that is of the kind when.
type hinted struct {
	error
	when error
	hint string
}

func (h *hinted) Unwrap() error { return h.error }

// hint adds to err, if there is one, what to do when it is of the kind when.
func hint(err, when error, hint string) error {
	if err == nil {
		return nil
	}
	return &hinted{err, when, hint}
}
