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
	// BTF names a file with the type information of exactly the guest's kernel,
	// raw as in /sys/kernel/btf/vmlinux or within a vmlinux, for a Linux kernel
	// that has none in its memory. None is needed else.
	BTF string
	// SystemMap names the System.map of exactly the guest's kernel, for a Linux
	// kernel whose own symbol table cannot be found. None is needed else.
	SystemMap string
	// Registers reads the control registers of one of the guest's processors, as
	// its monitor shows them. They make it quicker to find the kernel, and only
	// the one that they lead to is taken. Nil where there is no monitor, or the
	// memory is a RegisterReader; an error counts as if there were none.
	Registers func(ctx context.Context) (Registers, error)
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
	if r, ok := mem.(RegisterReader); ok && opt.Registers == nil {
		opt.Registers = r.Registers
	}
	k, err := openLinux(ctx, mem, linuxHelp{btf: opt.BTF, systemMap: opt.SystemMap, registers: opt.Registers})
	if err != nil {
		return nil, err
	}
	opt.Log.Info("guest kernel discovered", "os", "Linux "+k.release, "paging_levels", k.tables.levels)
	return newLinuxGuest(k, opt), nil
}
