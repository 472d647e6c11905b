package snort

import (
	"encoding/binary"
	"fmt"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/google/gopacket/layers"
)

// Rules change while packets go through: each of them comes out, whether the new
// rules are good or not, and afterwards the right ones are in force.
func TestEngine_ReloadLosesNoPacket(t *testing.T) {
	eachEngine(t, func(t *testing.T, engine string) {
		t.Parallel()
		w := newWire(t)
		c := configFor(t, engine, w, rule("first-rule", 1))
		r := run(t, c)
		pid := r.await(PhaseUp).PID

		stop, sent := make(chan struct{}), 0
		var sending sync.WaitGroup
		sending.Go(func() {
			for {
				select {
				case <-stop:
					return
				case <-time.After(2 * time.Millisecond):
				}
				w.i0.send(udpFrame(t, false, fmt.Appendf(nil, "the number of this is %08d", sent)))
				sent++
			}
		})
		came, ended := map[string]int{}, make(chan struct{})
		go func() {
			defer close(ended)
			for {
				frame, ok := w.i1.next(500 * time.Millisecond)
				if !ok {
					return // what was sent before the last half second is there
				}
				came[string(frame[42:])]++
			}
		}()
		for i := range 3 {
			must(t, os.WriteFile(c.Rules[0], []byte(rule("first-rule", 2+i)), 0o600))
			must(t, r.Reload(t.Context()))
			must(t, os.WriteFile(c.Rules[0], []byte("alert nonsense\n"), 0o600))
			if err := r.Reload(t.Context()); err == nil {
				t.Error("bad rules were taken")
			}
		}
		close(stop)
		sending.Wait()
		<-ended
		lost := 0
		for i := range sent {
			if n := came[fmt.Sprintf("the number of this is %08d", i)]; n != 1 {
				lost++
			}
		}
		t.Logf("%d packets", sent)
		if lost > 0 || sent < 100 {
			t.Errorf("of %d packets %d were lost or came twice", sent, lost)
		}
		w.i0.send(udpFrame(t, false, []byte("first-rule")))
		if a, ok := r.alert(5 * time.Second); !ok || a.SID != 4 {
			t.Errorf("the last good rules are not in force: %+v", a)
		}
		if s := r.State(); s.PID != pid {
			t.Errorf("the engine was started anew: %+v", s)
		}
	})
}

// Several threads share the flows; what belongs together stays in order.
func TestEngine_SeveralThreads(t *testing.T) {
	eachEngine(t, func(t *testing.T, engine string) {
		t.Parallel()
		w := newWire(t)
		c := configFor(t, engine, w, rule("find-me", 1)+"\n"+synFlood)
		c.Threads = 2
		r := run(t, c)
		r.await(PhaseUp)
		for i := range layers.TCPPort(8) { // connections, whose directions have to meet
			connection(t, w, 41000+i, 80, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
		}
		const flows, each = 8, 50
		last := map[byte]uint32{}
		for i := range uint32(flows * each) {
			frame := udpFrame(t, false, binary.BigEndian.AppendUint32([]byte("find-me!"), i))
			frame[35] = byte(i % flows) // of the source port
			frame[40], frame[41] = 0, 0 // no checksum
			w.i0.send(frame)
			if i%50 == 49 { // no more than a ring takes
				for range 50 {
					got, ok := w.i1.next(2 * time.Second)
					if !ok {
						t.Fatal("packets are lost")
					}
					number := binary.BigEndian.Uint32(got[50:])
					if before, ok := last[got[35]]; ok && number <= before {
						t.Errorf("flow %d: %d after %d", got[35], number, before)
					}
					last[got[35]] = number
				}
			}
		}
		if _, ok := r.alert(5 * time.Second); !ok {
			t.Error("no alert")
		}
	})
}
