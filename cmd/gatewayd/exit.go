package main

import (
	"errors"
	"fmt"
	"io"

	"github.com/vmgate/vmgate/internal/api"
)

// The exit codes; docs/cli.md lists them.
const (
	exitOK          = 0
	exitFailed      = 1 // anything that has no code of its own
	exitUsage       = 2 // the command line is wrong
	exitUnreachable = 3 // no daemon answered
	exitNotFound    = 4 // there is no such VM, process, entry, …
	exitInvalid     = 5 // a file or a value is wrong
)

var exitMeanings = []string{
	exitOK:          "done",
	exitFailed:      "failed for another reason than the ones below",
	exitUsage:       "the command line is wrong",
	exitUnreachable: "no daemon answers on the socket",
	exitNotFound:    "the VM, process, verdict or list entry does not exist",
	exitInvalid:     "a configuration, a file or a value is wrong",
}

// usageError is an error of the command line itself.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

// invalidInput is an error of a file that the command line names.
type invalidInput struct{ error }

func (e invalidInput) Unwrap() error { return e.error }

// errReported says that the output tells already what is wrong with the input.
var errReported = invalidInput{errors.New("reported")}

func exitCode(err error) int {
	if err == nil {
		return exitOK
	}
	if _, ok := errors.AsType[usageError](err); ok {
		return exitUsage
	}
	if _, ok := errors.AsType[invalidInput](err); ok {
		return exitInvalid
	}
	for _, kind := range []struct {
		sentinel error
		code     int
	}{
		{api.ErrUnreachable, exitUnreachable},
		{api.ErrNotFound, exitNotFound},
		{api.ErrInvalid, exitInvalid},
	} {
		if errors.Is(err, kind.sentinel) {
			return kind.code
		}
	}
	return exitFailed
}

// explainError tells a person what went wrong and, where it is known, what to do.
func explainError(w io.Writer, err error) {
	if err == nil || errors.Is(err, errReported) {
		return
	}
	fmt.Fprintf(w, "gatewayd: %s\n", printableLines(err.Error()))
	if e, ok := errors.AsType[*api.Error](err); ok && e.Hint != "" {
		fmt.Fprintf(w, "hint: %s\n", printableLines(e.Hint))
	}
}
