// Package vmi answers, from a virtual machine's memory alone, which process in
// it owns a socket, and which of its processes are hidden from its own
// listings. It needs no agent in the guest, no patched hypervisor and no
// profile of the guest's kernel, and it never writes.
//
// Guest memory is hostile input: every walk is bounded, every answer is read
// again before it is given, and what cannot be understood is an error, never
// "clean".
//
// # Layout, and how another operating system is added
//
// A Guest is what callers see: processes, sockets, owners, findings. Nothing in
// its types is Linux's own. What implements it for Linux is in files linux_*.go.
// The rest knows no operating system, which TestGenericPartsKnowNoSystem holds:
//
//   - memory_*.go: guest-physical memory, by whichever way it is reached (Memory).
//   - x86_*.go: page tables and control registers of the processor.
//   - budget.go: the bound on what one operation may read.
//   - printable.go: text out of a guest, made fit to be shown.
//   - vmi.go, answer.go, finding.go, fingerprint.go: questions, answers, errors.
//
// Windows, for instance, is files windows_*.go with a function
// openWindows(ctx, mem, …) that returns a Guest or one of the errors above:
// ErrNotReady where the memory holds no such kernel (yet), ErrNotUnderstood where
// it does and cannot be read. Open, which alone knows which systems there are,
// tries it where openLinux found no kernel. Such an implementation walks with
// pageTable, bounds each operation by a budget of reads, reads again what it is
// about to answer, says ErrUnstable where that differs, and checks with each call
// that its kernel is still the one that it discovered (ErrChanged).
package vmi
