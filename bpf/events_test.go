package bpf_test

import (
	"errors"
	"os"
	"time"
	"unsafe"

	"github.com/cilium/ebpf/ringbuf"

	"github.com/vmgate/vmgate/bpf"
)

// events opens the ring buffer; the returned function reads what has come.
func (g *gateway) events() func() []bpf.VmgateEvent {
	g.Helper()
	r, err := ringbuf.NewReader(g.maps["events"])
	if err != nil {
		g.Fatal(err)
	}
	g.Cleanup(func() { _ = r.Close() })
	return func() []bpf.VmgateEvent {
		var all []bpf.VmgateEvent
		for {
			r.SetDeadline(time.Now())
			rec, err := r.Read()
			if errors.Is(err, os.ErrDeadlineExceeded) {
				return all
			}
			if err != nil {
				g.Fatal(err)
			}
			if len(rec.RawSample) != int(unsafe.Sizeof(bpf.VmgateEvent{})) {
				g.Fatalf("event of %d bytes", len(rec.RawSample))
			}
			all = append(all, *(*bpf.VmgateEvent)(unsafe.Pointer(&rec.RawSample[0])))
		}
	}
}
