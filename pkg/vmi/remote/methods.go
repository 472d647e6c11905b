package remote

import (
	"context"
	"fmt"
	"io"

	"github.com/vmgate/vmgate/pkg/vmi"
)

// method answers one kind of call.
type method struct {
	// heavy ones look at a whole guest: of these few run at once.
	heavy  bool
	limit  int // bytes of the answer
	answer func(ctx context.Context, g vmi.Guest, arguments io.Reader) (any, error)
}

// methods are those that ask a guest; open asks the server.
var methods = map[string]method{
	methodOwners:      {limit: maxOneThing, answer: asking(vmi.Guest.Owners)},
	methodProcesses:   {heavy: true, limit: maxList, answer: listing(vmi.Guest.Processes)},
	methodSockets:     {heavy: true, limit: maxList, answer: listing(vmi.Guest.Sockets)},
	methodFindings:    {heavy: true, limit: maxList, answer: listing(vmi.Guest.Findings)},
	methodAlive:       {limit: maxOneThing, answer: ofInstance(vmi.Guest.Alive)},
	methodModules:     {heavy: true, limit: maxList, answer: listing(vmi.Guest.Modules)},
	methodSweep:       {heavy: true, limit: maxOneThing, answer: listing(sweep)},
	methodFingerprint: {heavy: true, limit: maxOneThing, answer: ofInstance(vmi.Guest.Fingerprint)},
}

// sweep has no result but its error.
func sweep(g vmi.Guest, ctx context.Context) (struct{}, error) { return struct{}{}, g.Sweep(ctx) }

func asking[A, R any](ask func(vmi.Guest, context.Context, A) (R, error)) func(context.Context, vmi.Guest, io.Reader) (any, error) {
	return func(ctx context.Context, g vmi.Guest, arguments io.Reader) (any, error) {
		var a A
		if err := decodeStrictly(arguments, maxRequest, &a); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
		}
		return ask(g, ctx, a)
	}
}

func listing[R any](list func(vmi.Guest, context.Context) (R, error)) func(context.Context, vmi.Guest, io.Reader) (any, error) {
	return asking(func(g vmi.Guest, ctx context.Context, _ struct{}) (R, error) { return list(g, ctx) })
}

func ofInstance[R any](ask func(vmi.Guest, context.Context, uint32, uint64) (R, error)) func(context.Context, vmi.Guest, io.Reader) (any, error) {
	return asking(func(g vmi.Guest, ctx context.Context, i instance) (R, error) { return ask(g, ctx, i.PID, i.Start) })
}
