package snort

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/fsnotify/fsnotify"
)

// packetWait is how long an event waits for the packet record that follows it.
const packetWait = 20 * time.Millisecond

// unstamped stands for the timestamp of a file without one, which Snort 3 writes unless
// told otherwise: older than any.
const unstamped = 1

// spool follows Snort's unified2 files NAME.TIMESTAMP, or NAME alone, from the end of
// the newest on and from one to the next. It only reads them.
type spool struct {
	base     string
	unstated Action
	to       *intake
	watcher  *fsnotify.Watcher

	file  *os.File // nil until there is one
	stamp uint64   // of file
	at    int64    // read up to here
	lost  bool     // the rest of file makes no sense

	pending *Alert // waits for its packet
	key     u2Key
}

func followSpool(base string, unstated Action, to *intake) (*spool, error) {
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		return nil, fmt.Errorf("cannot watch for alerts: %w", err)
	}
	s := &spool{base: base, unstated: unstated, to: to, watcher: watcher}
	if err = watcher.Add(filepath.Dir(base)); err == nil {
		err = s.begin()
	}
	if err != nil {
		s.close()
		return nil, fmt.Errorf("cannot follow %s for alerts: %w", base, err)
	}
	return s, nil
}

func (s *spool) close() {
	s.watcher.Close()
	if s.file != nil {
		s.file.Close()
	}
}

// begin opens the newest file, if there is one, and passes over what is in it.
func (s *spool) begin() error {
	stamps, err := s.stamps()
	if err != nil || len(stamps) == 0 {
		return err
	}
	newest := uint64(0)
	for _, stamp := range stamps {
		newest = max(newest, stamp)
	}
	if err := s.open(newest); err != nil {
		return err
	}
	return s.read(func(uint32, []byte) {})
}

// stamps are those of the files that are there.
func (s *spool) stamps() (stamps []uint64, err error) {
	entries, err := os.ReadDir(filepath.Dir(s.base))
	for _, e := range entries {
		if e.Name() == filepath.Base(s.base) && e.Type().IsRegular() {
			stamps = append(stamps, unstamped)
			continue
		}
		text, ours := strings.CutPrefix(e.Name(), filepath.Base(s.base)+".")
		if stamp, err := strconv.ParseUint(text, 10, 64); ours && err == nil && stamp > unstamped && e.Type().IsRegular() {
			stamps = append(stamps, stamp)
		}
	}
	return stamps, err
}

func (s *spool) open(stamp uint64) error {
	path := s.base + "." + strconv.FormatUint(stamp, 10)
	if stamp == unstamped {
		path = s.base
	}
	file, err := os.Open(path)
	if err != nil {
		return err
	}
	if s.file != nil {
		s.file.Close()
	}
	s.file, s.stamp, s.at, s.lost = file, stamp, 0, false
	return nil
}

func (s *spool) serve(ctx context.Context) error {
	defer s.close()
	for {
		if err := s.follow(); err != nil {
			return fmt.Errorf("cannot read alerts in %s: %w", s.base, err)
		}
		var late <-chan time.Time
		if s.pending != nil {
			late = time.After(packetWait)
		}
		select {
		case <-ctx.Done():
			s.flush()
			return nil
		case <-late:
			s.flush()
		case _, ok := <-s.watcher.Events:
			if !ok {
				return errors.New("cannot watch for alerts: the watch has ended")
			}
		case err := <-s.watcher.Errors: // some events were lost: all is looked at anyway
			if !errors.Is(err, fsnotify.ErrEventOverflow) {
				return fmt.Errorf("cannot watch for alerts: %w", err)
			}
		}
	}
}

// follow reads what is new, file by file. A newer one is there only when the one
// before is complete, so that is read once more before it is left.
func (s *spool) follow() error {
	for {
		next, err := s.next()
		if err != nil {
			return err
		}
		if s.file != nil {
			if err := s.read(s.record); err != nil {
				return err
			}
		}
		if next == 0 {
			return nil
		}
		if err := s.open(next); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
}

// next is the stamp of the oldest file that is newer than the one in hand, 0 for none.
func (s *spool) next() (uint64, error) {
	stamps, err := s.stamps()
	next := uint64(math.MaxUint64)
	for _, stamp := range stamps {
		if stamp > s.stamp {
			next = min(next, stamp)
		}
	}
	if next == math.MaxUint64 {
		next = 0
	}
	return next, err
}

// read hands over the whole records that are new in the file. One that cannot be
// right ends the file: behind it no record can be found any more.
func (s *spool) read(record func(kind uint32, body []byte)) error {
	if info, err := s.file.Stat(); err == nil && info.Size() < s.at { // Snort has begun it anew
		s.at, s.lost = 0, false
	}
	header, body := make([]byte, u2HeaderLen), []byte(nil)
	for !s.lost {
		if n, err := s.file.ReadAt(header, s.at); n < u2HeaderLen {
			return endOfFile(err)
		}
		kind, length := binary.BigEndian.Uint32(header), binary.BigEndian.Uint32(header[4:])
		if length > maxU2Record {
			s.lost = true
			s.to.bad(fmt.Errorf("a unified2 record of %d bytes", length))
			s.to.log.Error("a unified2 file is damaged: alerts are lost until Snort begins another",
				"file", s.file.Name(), "at", s.at)
			return nil
		}
		if cap(body) < int(length) {
			body = make([]byte, maxU2Record)
		}
		body = body[:length]
		if n, err := s.file.ReadAt(body, s.at+u2HeaderLen); n < int(length) {
			return endOfFile(err) // the rest is still being written
		}
		s.at += u2HeaderLen + int64(length)
		record(kind, body)
	}
	return nil
}

func endOfFile(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// record takes one record: an event waits for its packet.
func (s *spool) record(kind uint32, body []byte) {
	switch {
	case isU2Event(kind):
		s.flush()
		a, key, err := parseU2Event(kind, body, s.unstated)
		if err != nil {
			s.to.bad(err)
			return
		}
		s.pending, s.key = &a, key
	case kind == u2Packet && s.pending != nil:
		frame, key, err := parseU2Packet(body)
		if err != nil {
			s.to.bad(err)
			return
		}
		if key != s.key {
			return // another event's, or a rule's that tags packets
		}
		if frame != nil {
			s.pending.fillFrame(frame)
		}
		s.flush()
	}
}

func (s *spool) flush() {
	if s.pending != nil {
		s.to.alert(*s.pending)
		s.pending = nil
	}
}
