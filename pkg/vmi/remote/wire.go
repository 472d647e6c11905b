// Package remote carries the interface vmi.Guest over a network, so that what
// looks into a guest runs on that guest's host and an answer takes one round
// trip: Server gives guests to clients, a Client's Open gives one back as a
// vmi.Guest.
//
// It is JSON over HTTP/2 over TLS 1.3, all of it the standard library's: HTTP/2
// multiplexes the look-ups of one connection and tells the server when one has
// been given up, and Go's JSON is bounded, typed and fuzzed. Both ends prove who
// they are by certificates. A call is
//
//	POST /v1/VM/METHOD
//	Vmgate-Session: what open has given
//	Vmgate-Timeout: milliseconds that the caller waits
//
// with the arguments as its body. An argument that the server does not know is
// refused, since it may narrow the question down; what the client does not know of
// an answer is passed over.
package remote

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/vmgate/vmgate/pkg/vmi"
)

// Errors of the way itself; those of package vmi travel too.
var (
	// ErrUnknownVM: the server has no such VM, or not for this client.
	ErrUnknownVM = errors.New("the inspector does not serve this VM to this client")
	// ErrBusy: the client asks more than the server allows it.
	ErrBusy = errors.New("the inspector is asked too much")
	// ErrInvalid: the call is none that the server understands.
	ErrInvalid = errors.New("the inspector does not understand the call")
)

// kinds are the errors that keep their identity on the way.
var kinds = []struct {
	kind   string
	status int
	err    error
}{
	{"not-ready", http.StatusServiceUnavailable, vmi.ErrNotReady},
	{"not-understood", http.StatusUnprocessableEntity, vmi.ErrNotUnderstood},
	{"changed", http.StatusConflict, vmi.ErrChanged},
	{"unstable", http.StatusServiceUnavailable, vmi.ErrUnstable},
	{"no-process", http.StatusNotFound, vmi.ErrNoProcess},
	{"unknown-vm", http.StatusNotFound, ErrUnknownVM},
	{"busy", http.StatusTooManyRequests, ErrBusy},
	{"invalid", http.StatusBadRequest, ErrInvalid},
	{"deadline", http.StatusGatewayTimeout, context.DeadlineExceeded},
	{"cancelled", http.StatusGatewayTimeout, context.Canceled},
}

const (
	sessionHeader = "Vmgate-Session"
	timeoutHeader = "Vmgate-Timeout"
)

// Bounds on what either end takes from the other, in bytes.
const (
	maxRequest  = 4 << 10
	maxOneThing = 1 << 20  // of an answer about one socket or process
	maxList     = 64 << 20 // of an answer that lists all of a guest
	maxError    = 16 << 10
)

// maxTimeout bounds what a server works on one call: a sweep over a large guest
// takes a second.
const maxTimeout = 30 * time.Second

// The methods, as they stand in the path.
const (
	methodOpen        = "open"
	methodOwners      = "owners"
	methodProcesses   = "processes"
	methodSockets     = "sockets"
	methodAlive       = "alive"
	methodFindings    = "findings"
	methodFingerprint = "fingerprint"
	methodSweep       = "sweep"
	methodModules     = "modules"
)

// instance names a process.
type instance struct {
	PID   uint32 `json:"pid"`
	Start uint64 `json:"start_ns"`
}

// opening is the answer to open.
type opening struct {
	OS string `json:"os"`
	// Session names the guest as it is now: after a reboot it is another, and calls
	// that bear the old one are answered by ErrChanged.
	Session string `json:"session"`
}

// failure is the body of an answer that is an error.
type failure struct {
	Kind  string `json:"kind"` // of kinds; empty for another
	Error string `json:"error"`
}

// remoteError is an error from the other end.
type remoteError struct {
	text string
	kind error // of kinds, or nil
}

func (e *remoteError) Error() string { return e.text }
func (e *remoteError) Unwrap() error { return e.kind }

// encodeError turns an error into what travels.
func encodeError(err error) (status int, f failure) {
	f.Error = clip(err.Error())
	for _, k := range kinds {
		if errors.Is(err, k.err) {
			f.Kind = k.kind
			return k.status, f
		}
	}
	return http.StatusInternalServerError, f
}

func clip(s string) string {
	if len(s) > maxError/8 { // JSON may write a byte as six
		return s[:maxError/8] + "…"
	}
	return s
}

// decodeError is the inverse, for an answer that is not 200.
func decodeError(status int, body io.Reader) error {
	var f failure
	if err := decode(body, maxError, &f); err != nil || f.Error == "" {
		return fmt.Errorf("the inspector answers with status %d", status)
	}
	for _, k := range kinds {
		if f.Kind == k.kind {
			return &remoteError{clip(f.Error), k.err}
		}
	}
	return &remoteError{clip(f.Error), nil}
}

// decode reads one JSON value of at most limit bytes, and nothing behind it.
func decode(r io.Reader, limit int64, into any) error {
	text, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err != nil {
		return err
	}
	if int64(len(text)) > limit {
		return fmt.Errorf("more than %d bytes", limit)
	}
	return json.Unmarshal(text, into)
}

// decodeStrictly is decode that refuses what it does not know.
func decodeStrictly(r io.Reader, limit int64, into any) error {
	text, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err != nil {
		return err
	}
	if int64(len(text)) > limit {
		return fmt.Errorf("more than %d bytes", limit)
	}
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("something behind the arguments")
	}
	return nil
}
