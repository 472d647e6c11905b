package vmi

import (
	"context"
	"errors"
	"log/slog"
)

// Options tune how a guest is looked at; the zero value is good.
type Options struct {
	// HiddenSamples is how many looks must agree before a process is called
	// hidden; 3 if zero.
	HiddenSamples int
	// Log gets what people should know of the guest; nothing if nil.
	Log *slog.Logger
}

const defaultHiddenSamples = 3

// Open discovers the operating system that runs in mem, which the caller goes
// on owning and closes after its last use of the Guest. It takes some 50 ms.
//
// Errors are ErrNotReady where there is no kernel (yet), and ErrNotUnderstood
// with the reason where there is one that cannot be introspected.
func Open(ctx context.Context, mem Memory, opt Options) (Guest, error) {
	if mem == nil {
		return nil, errors.New("cannot open a guest without memory")
	}
	if opt.HiddenSamples <= 0 {
		opt.HiddenSamples = defaultHiddenSamples
	}
	if opt.Log == nil {
		opt.Log = slog.New(slog.DiscardHandler)
	}
	k, err := openLinux(ctx, mem)
	if err != nil {
		return nil, err
	}
	opt.Log.Info("guest kernel discovered", "os", "Linux "+k.release, "paging_levels", k.tables.levels)
	return newLinuxGuest(k, opt), nil
}
