// Package loader owns vmgate's kernel side: it loads the BPF maps and
// programs, attaches the programs to the gateway's devices, pins both under
// bpffs so that decided traffic outlives the daemon, adopts what an earlier
// daemon left, and prepares the devices themselves (offloads, the gateway's
// bridge, the veth pairs of the IDS).
//
// It is the only user of the maps' wire format. Callers see [FlowKey], [Flow],
// [VMEntry] and so on, in Go terms; verdict and cause fields are the numbers of
// verdict.Verdict and verdict.Cause. Times are CLOCK_MONOTONIC nanoseconds, as
// returned by [Now], unless said otherwise.
//
// A [Dataplane] owns file descriptors only. [Dataplane.Close] gives them back
// and leaves pins and enforcement in place; [Remove] ends enforcement.
//
// All device work happens in the network namespace of the calling thread. A
// program that changes namespaces must lock its goroutine to the thread.
package loader
