package app

import (
	"fmt"
	"time"
)

/*
When an engine counts as hung. Every lookEvery a few canaries go through it in both
directions, and its inspecting threads are looked at. Overload must not be taken for
a hang: a busy engine loses canaries as it loses packets, and a starved one is late
with them. So a missing canary alone is no reason, unless it is missing for very long.

  - A process that ends is noticed by its pidfd, or by the end of its inspecting
    threads: until its memory is freed, which is before it is gone, takes a while.
  - A thread that two looks find stopped (T, t) and that has not run between them is
    stopped: SIGSTOP, a debugger, a freezer of old.
  - Work wakes a thread that waits for it. One that sleeps, has neither run nor waited
    for a processor for asleepAfter, while a canary is known to lie before it all that
    time, will not wake: deadlocked, or frozen. That the canary has come to its port
    is seen by a packet socket beside the engine's own, in the same turn of the
    kernel's: a kernel that is late with packets blames nobody. Where another worker of
    the direction may have it, or another of its threads had to wait for a processor
    while it may have held a lock, the time is longer.
  - An engine that is awake and lets nothing through is judged by canaries and the
    frames that come out of it. Any of them is a sign of life. Without any, it is hung
    after hungAfter if it did nothing meanwhile, and after loopsAfter of processor time
    if it was given next to nothing to work on. If it was busy, after stuckAfter: under
    a flood of which everything is dropped no frame comes out and a canary finds room
    in the ring by luck; at fifty times what the engine can do the chance that none of
    2,000 does is nil. So it is an endless loop.
  - Of an engine in another machine only canaries and frames tell. Its time adapts:
    gapFactor times the longest gap seen of late while it has nothing to do, hungAfter
    while it has work, stuckAfter while it has much.

Silence is counted in the intervals that were to be waited, and what has come in is
looked at before it counts: a daemon that was itself stopped or starved blames nobody.
*/
const (
	lookEvery   = 15 * time.Millisecond
	asleepAfter = 3 * lookEvery
	sharedAfter = 20 * lookEvery // where it may be another worker's, or a lock's fault
	hungAfter   = time.Second
	stuckAfter  = 10 * time.Second // also how long the first canary of a new engine may take
	loopsAfter  = 250 * time.Millisecond
	busyShare   = 10 // busy: a tenth of one processor was used or waited for
	gapFactor   = 6

	idleRate  = 200    // frames a second: less is next to nothing
	floodRate = 20_000 // more is much
)

// watch judges one process of the engine by the signs of life that it gives.
type watch struct {
	proven  [directions]bool          // it has let something through
	silent  [directions]time.Duration // since the last sign
	gap     [directions]time.Duration // the longest silence that ended, of late
	busy    time.Duration             // of the threads, before the silence
	ran     time.Duration             // the same, only run
	given   uint64                    // frames, before the silence
	workers map[int]*workerWatch      // by thread id
}

// workerWatch is what is known of one inspecting thread.
type workerWatch struct {
	turns   uint64
	stopped time.Duration
	asleep  time.Duration // over its work
	starved bool          // another thread had to wait in that time
}

// sight is what one look shows.
type sight struct {
	life    [directions]bool // a canary came back, or another frame came out
	waiting [directions]bool // a canary is known to lie before the engine since the last look
	given   uint64           // frames that the engine was given so far, beside canaries
	threads []*thread        // that inspect; none where the engine is out of sight
	ending  bool             // its threads have ended; the process is about to
}

// worked is how long the threads have run, and run or waited for a processor, so far.
func (s *sight) worked() (ran, busy time.Duration) {
	for _, th := range s.threads {
		ran += th.ran
		busy += th.ran + th.waited
	}
	return ran, busy
}

// tick takes what was seen after an interval. A reason that is not empty says that
// the engine is hung.
func (w *watch) tick(waited time.Duration, s *sight) (hung string) {
	if hung := w.tickThreads(waited, s); hung != "" {
		return hung
	}
	if !w.suspect() {
		w.ran, w.busy = s.worked()
		w.given = s.given
	}
	for d := range s.life {
		if s.life[d] {
			// It is forgotten by half in some seven hundred looks, ten seconds.
			w.gap[d] = max(w.silent[d], w.gap[d]-w.gap[d]/1024)
			w.proven[d], w.silent[d] = true, 0
			continue
		}
		w.silent[d] += waited
		if w.silent[d] >= w.limit(d, s) {
			hung = fmt.Sprintf("the engine hangs: nothing came through from %s for %v", directionNames[d], w.silent[d])
		}
	}
	if hung != "" && w.silent[inToOut] == w.silent[outToIn] {
		hung = fmt.Sprintf("the engine hangs: nothing came through in either direction for %v", w.silent[inToOut])
	}
	if hung != "" && len(s.threads) > 0 {
		_, busy := s.worked()
		hung += fmt.Sprintf(", and its threads worked or waited for a processor for %v of it", (busy - w.busy).Round(time.Millisecond))
	}
	return hung
}

// limit is how long nothing may come through in a direction.
func (w *watch) limit(d int, s *sight) time.Duration {
	ran, busy := s.worked()
	given := s.given - w.given
	rate := func(perSecond uint64) bool { return given*uint64(time.Second) >= perSecond*uint64(w.silent[d]) }
	switch {
	case !w.up():
		return stuckAfter
	case len(s.threads) == 0 && rate(floodRate):
		return stuckAfter
	case len(s.threads) == 0 && rate(idleRate):
		return hungAfter
	case len(s.threads) == 0:
		return min(max(gapFactor*w.gap[d], gapFactor*lookEvery), hungAfter)
	case ran-w.ran >= loopsAfter && !rate(idleRate):
		return 0
	case (busy-w.busy)*busyShare >= w.silent[d]:
		return stuckAfter
	}
	return hungAfter
}

// tickThreads judges each inspecting thread by itself.
func (w *watch) tickThreads(waited time.Duration, s *sight) (hung string) {
	known := w.workers
	w.workers = map[int]*workerWatch{}
	for _, th := range s.threads {
		was := known[th.id]
		if was == nil {
			w.workers[th.id] = &workerWatch{turns: th.turns}
			continue
		}
		w.workers[th.id] = was
		still := th.turns == was.turns
		was.turns = th.turns
		if still && (th.state == 'T' || th.state == 't') {
			was.stopped += waited
		} else {
			was.stopped = 0
		}
		if was.stopped >= lookEvery {
			return fmt.Sprintf("the engine hangs: its thread %s is stopped", th.name)
		}
		if still && th.state == 'S' && w.hasWork(th, s) {
			was.asleep += waited
			was.starved = was.starved || starving(s.threads)
		} else {
			was.asleep, was.starved = 0, false
		}
		limit := asleepAfter
		if was.starved || shares(th, s.threads) {
			limit = sharedAfter
		}
		if was.asleep >= limit {
			return fmt.Sprintf("the engine hangs: its thread %s sleeps over its work for %v", th.name, was.asleep)
		}
	}
	return ""
}

// hasWork says whether a canary lies before the thread.
func (w *watch) hasWork(th *thread, s *sight) bool {
	for d := range s.waiting {
		if th.side[d] && s.waiting[d] && w.proven[d] {
			return true
		}
	}
	return false
}

// shares says whether the thread is not the only one of one of its directions.
func shares(th *thread, all []*thread) bool {
	for _, other := range all {
		for d := range th.side {
			if other != th && th.side[d] && other.side[d] {
				return true
			}
		}
	}
	return false
}

// starving says whether a thread wants a processor or the disk: it may hold what the
// others wait for.
func starving(all []*thread) bool {
	for _, th := range all {
		if th.state == 'R' || th.state == 'D' {
			return true
		}
	}
	return false
}

// up says whether the engine has worked in both directions.
func (w *watch) up() bool { return w.proven[inToOut] && w.proven[outToIn] }

// suspect says whether something was missed.
func (w *watch) suspect() bool { return w.silent != [directions]time.Duration{} }
