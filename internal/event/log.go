package event

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
)

// logQueue is how many events may wait for the disk.
const logQueue = 4096

// Log appends events to a file, one JSON object a line. Writing never blocks on
// the disk: events wait in a bounded queue for one goroutine that the Log owns,
// and what does not fit is counted and told by an event of type "lost".
type Log struct {
	mu     sync.RWMutex // held for writing by Close, so that nobody sends on a closed queue
	closed bool
	queue  chan Event
	done   chan struct{}
	err    error // of closing the file; read after done

	file *rotatingFile
	log  *slog.Logger
	lost atomic.Uint64 // in all
}

// OpenLog opens or makes the file (mode 0640) and appends to it. When it would
// grow beyond maxSize bytes it is renamed to PATH.1, replacing the one before,
// and begun anew. Trouble with the disk is logged to log, once until it is over.
// The caller closes the Log.
func OpenLog(path string, maxSize int64, log *slog.Logger) (*Log, error) {
	file, err := openRotating(path, maxSize)
	if err != nil {
		return nil, fmt.Errorf("cannot open the event log: %w", err)
	}
	l := &Log{queue: make(chan Event, logQueue), done: make(chan struct{}), file: file, log: log}
	go l.run()
	return l, nil
}

// Write queues e for the file. It never blocks; after Close it counts e as lost.
func (l *Log) Write(e Event) {
	l.mu.RLock()
	defer l.mu.RUnlock()
	if l.closed {
		l.lost.Add(1)
		return
	}
	select {
	case l.queue <- e:
	default:
		l.lost.Add(1)
	}
}

// Lost returns how many events did not reach the file since it was opened.
func (l *Log) Lost() uint64 { return l.lost.Load() }

// Close writes what is queued and closes the file.
func (l *Log) Close() error {
	l.mu.Lock()
	if !l.closed {
		l.closed = true
		close(l.queue)
	}
	l.mu.Unlock()
	<-l.done
	return l.err
}

func (l *Log) run() {
	defer close(l.done)
	var told uint64 // lost events that the file tells of
	failing := false
	for e := range l.queue {
		err := l.append(e)
		if lost := l.lost.Load(); err == nil && lost > told {
			if err = l.append(lostEvent(lost - told)); err == nil {
				told = lost
			}
		}
		if (err != nil) != failing {
			failing = err != nil
			l.reportDisk(err)
		}
	}
	if lost := l.lost.Load(); lost > told {
		_ = l.append(lostEvent(lost - told))
	}
	l.err = l.file.Close()
}

// append writes one line; an event that cannot be written is lost.
func (l *Log) append(e Event) error {
	line, err := json.Marshal(e)
	if err == nil {
		err = l.file.WriteLine(append(line, '\n'))
	}
	if err != nil && e.Type != TypeLost {
		l.lost.Add(1)
	}
	return err
}

func (l *Log) reportDisk(err error) {
	if err != nil {
		l.log.Error("cannot write the event log: events are being lost", "file", l.file.path, "error", err)
		return
	}
	l.log.Info("the event log can be written again", "file", l.file.path)
}
