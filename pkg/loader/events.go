package loader

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/cilium/ebpf/ringbuf"
)

// Events hands the kernel programs' events to handle, one at a time and in
// their order, until ctx is done. Events for which the ring has no room are
// lost and counted. Only one caller at a time gets events.
func (d *Dataplane) Events(ctx context.Context, handle func(Event)) error {
	r, err := ringbuf.NewReader(d.maps["events"])
	if err != nil {
		return fmt.Errorf("cannot read events: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { _ = r.Close() })
	defer func() {
		if stop() {
			_ = r.Close()
		}
	}()
	var rec ringbuf.Record
	for {
		switch err := r.ReadInto(&rec); {
		case errors.Is(err, ringbuf.ErrClosed):
			return nil
		case err != nil:
			return fmt.Errorf("cannot read events: %w", err)
		}
		e, err := decodeEvent(rec.RawSample)
		if err != nil {
			return err
		}
		handle(e)
	}
}

// decodeEvent reads an event as it stands in the ring.
func decodeEvent(raw []byte) (Event, error) {
	var w wireEvent
	if _, err := binary.Decode(raw, binary.NativeEndian, &w); err != nil {
		return Event{}, fmt.Errorf("cannot decode an event of %d bytes: %w", len(raw), err)
	}
	e := eventFromWire(w)
	if e.Type != EventDHCP {
		return e, nil
	}
	var dhcp wireDHCPEvent
	if _, err := binary.Decode(raw, binary.NativeEndian, &dhcp); err != nil {
		return Event{}, fmt.Errorf("cannot decode a DHCP event of %d bytes: %w", len(raw), err)
	}
	e.DHCP = dhcp.Message[:min(int(dhcp.Len), len(dhcp.Message))]
	return e, nil
}
