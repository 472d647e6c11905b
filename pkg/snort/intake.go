package snort

import (
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
)

// queueLength bounds the alerts that wait for onAlert: some 0.1 s of the
// heaviest flood seen.
const queueLength = 4096

// format is how an engine writes a line about an alert.
type format interface {
	// parse reads one line; false means that it is a good line about something
	// else than an alert.
	parse(line []byte) (a Alert, isAlert bool, err error)
	// marks are what stands before rule, source and action in a line.
	marks() [3]string
}

// intake takes what sources read, in any number of goroutines, and hands the alerts
// over one by one. It never waits and holds a bounded number.
type intake struct {
	log   *slog.Logger
	queue chan Alert

	lines, malformed, lost, repeated atomic.Uint64

	mu    sync.Mutex
	limit limiter
}

// counts fills in the numbers of a state.
func (in *intake) counts(s *State) {
	s.Lines, s.Malformed, s.Lost, s.Repeated = in.lines.Load(), in.malformed.Load(), in.lost.Load(), in.repeated.Load()
}

// open makes the queue, and hands what comes in it to onAlert until the returned
// function is called; that returns when all of it was handed over.
func (in *intake) open(onAlert func(Alert)) (end func()) {
	queue, delivered := make(chan Alert, queueLength), make(chan struct{})
	in.queue = queue
	go func() {
		defer close(delivered)
		for a := range queue {
			onAlert(a)
		}
	}()
	return func() {
		close(queue)
		<-delivered
	}
}

// splitter cuts a stream into lines of the format and takes them.
func (in *intake) splitter(f format) *splitter {
	return &splitter{line: func(line []byte) { in.line(f, line) }, overlong: in.overlong}
}

// line takes one line.
func (in *intake) line(f format, line []byte) {
	in.lines.Add(1)
	in.mu.Lock()
	enough := in.limit.enough(line, f.marks(), time.Now())
	in.mu.Unlock()
	if enough {
		in.repeated.Add(1)
		return
	}
	a, isAlert, err := f.parse(line)
	if err != nil {
		in.refuse("IDS line not understood", err)
		return
	}
	if isAlert {
		in.put(a)
	}
}

// alert takes one alert of a binary source, as one line.
func (in *intake) alert(a Alert) {
	in.lines.Add(1)
	in.mu.Lock()
	enough := in.limit.enoughAlerts(a, time.Now())
	in.mu.Unlock()
	if enough {
		in.repeated.Add(1)
		return
	}
	in.put(a)
}

func (in *intake) put(a Alert) {
	select {
	case in.queue <- a:
	default:
		in.lost.Add(1)
	}
}

func (in *intake) overlong() {
	in.lines.Add(1)
	in.malformed.Add(1)
}

// bad counts a record that cannot be read.
func (in *intake) bad(err error) {
	in.lines.Add(1)
	in.refuse("IDS record not understood", err)
}

func (in *intake) refuse(what string, err error) {
	in.malformed.Add(1)
	in.log.Debug(what, "error", err)
}
