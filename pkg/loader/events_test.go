package loader

import (
	"context"
	"testing"
	"time"
)

func TestEvents_TellOfADroppedPacket(t *testing.T) {
	g := newGateway(t)
	must(t, g.d.SetOwner(7, Owner{Verdict: drop, Cause: 2, VM: 1}))
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	events, ended := make(chan Event, 1), make(chan error, 1)
	go func() {
		ended <- g.d.Events(ctx, func(e Event) {
			select {
			case events <- e:
			default:
			}
		})
	}()
	g.vm[0].ready()
	sent := g.frame(1, false)
	g.vm[0].send(sent)
	select {
	case e := <-events:
		_, from := NewFlowKey(17, endA, endB, 0, 0, 1)
		if e.Type != EventDrop || e.Reason.String() != "drop-verdict" || e.Port != 1 || e.VM != 1 || e.Owner != 7 || e.Key != g.key ||
			e.From != from || e.SrcMAC != g.vm[0].mac || e.DstMAC != g.vm[1].mac || e.Ethertype != 0x0800 || int(e.FrameLen) != len(sent) {
			t.Errorf("event %+v", e)
		}
		if age := Now() - e.Time; age > uint64(10*time.Second) {
			t.Errorf("the event is %v old", time.Duration(age))
		}
	case <-ctx.Done():
		t.Fatal("no event")
	}
	cancel()
	must(t, <-ended)
}
