package app

import (
	"context"
	"fmt"
	"net"
	"time"

	"github.com/vmgate/vmgate/internal/config"
	"github.com/vmgate/vmgate/pkg/snort"
)

/*
When an engine counts as hung. Canaries go through it in both directions, one every
canaryEvery; as soon as one is missed, one every suspectEvery.

A busy engine drops canaries as it drops packets, so a missed canary alone says
little. Any frame that comes out of the engine is a sign of life of that direction,
since a hung engine lets nothing out. Without any sign the engine is hung

  - after hungAfter, four canaries' time, if its threads neither ran nor waited for a
    processor for a tenth of it: stopped or deadlocked. TCP has by then sent its
    packet again once or twice, and no pause of an engine that has work and does
    nothing was seen to be that long;
  - after stuckAfter if it was busy. Under a flood of which everything is dropped
    no frame comes out and a canary finds room in the ring by luck: at ten times
    what the engine can do, the chance that none of 400 does is 10^-18. So it is an
    engine in an endless loop.

Silence is counted in the intervals that were to be waited, and what has come in is
looked at before it counts: a daemon that was itself stopped or starved blames
nobody.
*/
const (
	canaryEvery  = 250 * time.Millisecond
	suspectEvery = 25 * time.Millisecond
	hungAfter    = 4 * canaryEvery
	stuckAfter   = 10 * time.Second // also how long the first canary of a new engine may take
	busyShare    = 10               // busy: a tenth of one processor was used or waited for
)

// watch judges one process of the engine by the signs of life that it gives.
type watch struct {
	pid    int
	proven [directions]bool          // it has let something through
	silent [directions]time.Duration // since the last sign
	before time.Duration             // snort.Engine.Busy before the silence
}

// tick takes what was seen in an interval, and what snort.Engine.Busy says now. A
// reason that is not empty says that it is hung.
func (w *watch) tick(waited time.Duration, life [directions]bool, busy time.Duration) (hung string) {
	if !w.suspect() {
		w.before = busy
	}
	for d := range life {
		if life[d] {
			w.proven[d], w.silent[d] = true, 0
			continue
		}
		w.silent[d] += waited
		limit := hungAfter
		if !w.up() || (busy-w.before)*busyShare >= w.silent[d] {
			limit = stuckAfter
		}
		if w.silent[d] >= limit {
			hung = fmt.Sprintf("the engine hangs: nothing came through from %s for %v", directionNames[d], w.silent[d])
		}
	}
	if hung != "" && w.silent[inToOut] == w.silent[outToIn] {
		hung = fmt.Sprintf("the engine hangs: nothing came through in either direction for %v", w.silent[inToOut])
	}
	if hung != "" {
		hung += fmt.Sprintf(", and its threads worked or waited for a processor for %v of it", (busy - w.before).Round(time.Millisecond))
	}
	return hung
}

// up says whether the engine has worked in both directions.
func (w *watch) up() bool { return w.proven[inToOut] && w.proven[outToIn] }

// suspect says whether something was missed.
func (w *watch) suspect() bool { return w.silent != [directions]time.Duration{} }

// every is how long to wait for the next sign.
func (w *watch) every() time.Duration {
	if w.up() && !w.suspect() {
		return canaryEvery
	}
	return suspectEvery
}

// watchEngine keeps canaries going through the engine until ctx is done. The kernel
// sends it traffic only once it is proven; one of ours (own is not nil) that hangs is
// killed.
func (i *ids) watchEngine(ctx context.Context, cfg *config.Config, engine engine, own *snort.Engine) {
	ports := idsPorts(cfg)
	isVM := func(mac net.HardwareAddr) bool { return i.now().inv.byHardware(mac) != nil }
	birds := newCanary(ports.In, ports.Out, isVM, i.log)
	defer birds.close()
	var w watch
	var frames [directions]uint64
	var foreign foreignLoad
	if own == nil {
		birds.send()
	}
	for {
		waited := w.every()
		select {
		case <-ctx.Done():
			return
		case <-time.After(waited):
		}
		back := birds.returned()
		s := engine.State()
		if s.Phase != snort.PhaseUp {
			w = watch{}
			continue
		}
		if s.PID != w.pid {
			w, frames = watch{pid: s.PID}, i.framesOut()
			birds.send()
			continue
		}
		var busy time.Duration
		if back != [directions]bool{true, true} {
			now := i.framesOut()
			for d := range back {
				// A first reading has nothing to compare with.
				back[d] = back[d] || w.suspect() && now[d] != frames[d]
			}
			frames = now
			if own == nil {
				busy = foreign.busy(waited, i.framesIn())
			} else {
				busy, _ = own.Busy(s.PID) // gone: its supervision tells
			}
		}
		wasUp := w.up()
		if hung := w.tick(waited, back, busy); hung != "" {
			i.hung(own, s.PID, hung)
			w = watch{}
			birds.send()
			continue
		}
		if w.up() && !wasUp {
			i.prove(s.PID)
		}
		birds.send()
	}
}

// framesOut counts, by direction, all frames but canaries that came out of the
// engine so far.
func (i *ids) framesOut() (frames [directions]uint64) {
	counters, err := i.dp.Counters()
	if err != nil {
		i.log.Error("cannot read what came out of the IDS", "error", err)
	}
	far := map[uint32]int{idsOutPort: inToOut, idsInPort: outToIn}
	for _, c := range counters {
		if d, ok := far[c.PortID]; ok && c.Reason.String() != "canary" {
			frames[d] += c.Packets
		}
	}
	return frames
}

// framesIn counts the packets that were sent to the engine so far.
func (i *ids) framesIn() (n uint64) {
	counters, err := i.dp.Counters()
	if err != nil {
		i.log.Error("cannot read what went into the IDS", "error", err)
	}
	for _, c := range counters {
		if r := c.Reason.String(); r == "check" || r == "egress-check" {
			n += c.Packets
		}
	}
	return n
}

// foreignLoad guesses how busy an engine is whose threads cannot be looked at: all
// the time in which it was given something to do. So an overload is never taken for
// a hang, and a hang under load is noticed after stuckAfter only.
type foreignLoad struct {
	given uint64
	sum   time.Duration
}

func (f *foreignLoad) busy(waited time.Duration, given uint64) time.Duration {
	if given != f.given {
		f.given = given
		f.sum += waited
	}
	return f.sum
}

// prove lets traffic to the process pid of the engine: canaries came through.
func (i *ids) prove(pid int) {
	if !i.set(pid, true) {
		return
	}
	i.log.Info("ids", "state", "up", "pid", pid)
	i.journal.note("ids", "engine up: canaries come through in both directions")
}

// hung takes the traffic from the process pid of the engine, and kills it if it is
// ours; its supervision starts another.
func (i *ids) hung(own *snort.Engine, pid int, why string) {
	if !i.isUp() && own == nil || !i.set(pid, false) {
		return
	}
	i.log.Error("ids", "state", "hung", "pid", pid, "detail", why)
	i.journal.note("ids", why)
	if own != nil {
		own.Kill(pid, why)
	}
}
