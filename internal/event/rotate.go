package event

import (
	"errors"
	"os"
)

// rotatingFile appends lines to a file and keeps one older file beside it, as
// PATH.1. (lumberjack, the usual library for this, counts in megabytes and names
// its old files by time; the configuration promises bytes and PATH.1.)
type rotatingFile struct {
	path string
	max  int64
	f    *os.File
	size int64
}

func openRotating(path string, maxSize int64) (*rotatingFile, error) {
	r := &rotatingFile{path: path, max: maxSize}
	return r, r.open()
}

func (r *rotatingFile) open() error {
	f, err := os.OpenFile(r.path, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o640)
	if err != nil {
		return err
	}
	info, err := f.Stat()
	if err != nil {
		return errors.Join(err, f.Close())
	}
	r.f, r.size = f, info.Size()
	return nil
}

// WriteLine appends line, which ends in a newline, rotating first if it would not
// fit. A line longer than the limit has a file of its own.
func (r *rotatingFile) WriteLine(line []byte) error {
	if r.f == nil { // an earlier rotation could not open the new file
		if err := r.open(); err != nil {
			return err
		}
	}
	if r.size > 0 && r.size+int64(len(line)) > r.max {
		if err := r.rotate(); err != nil {
			return err
		}
	}
	n, err := r.f.Write(line)
	r.size += int64(n)
	if err != nil && n > 0 { // half a line would spoil the next one too
		if r.f.Truncate(r.size-int64(n)) == nil {
			r.size -= int64(n)
		}
	}
	return err
}

func (r *rotatingFile) rotate() error {
	if err := os.Rename(r.path, r.path+".1"); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	_ = r.f.Close()
	r.f = nil
	return r.open()
}

// Close closes the file.
func (r *rotatingFile) Close() error {
	if r.f == nil {
		return nil
	}
	return r.f.Close()
}
