package snort

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	// Wakes the reader within a fraction of a millisecond. The tail package on
	// top of it reads lines of any length into memory, so it is not used.
	"github.com/fsnotify/fsnotify"
	"golang.org/x/sys/unix"
)

// freeAfter is how much of a file is read before its blocks are given back.
const freeAfter = 8 << 20

// fileWatch reads the lines that are appended to the files of a pattern. What
// was read is freed by punching a hole: unlike truncating in place it cannot
// lose a line that is written meanwhile, and the writer's position stays right.
type fileWatch struct {
	dir, pattern string
	by           *account // whose the files are; nil: someone else's, which are only read
	to           *splitter
	watcher      *fsnotify.Watcher
	files        map[string]*followed
}

// followed is one file; several threads of the engine write one each.
type followed struct {
	file  *os.File
	at    int64 // read up to here
	freed int64 // and freed up to here
	keep  bool  // free nothing
	lines splitter
}

func (w *fileWatch) follow(file *os.File) *followed {
	return &followed{file: file, keep: w.by == nil, lines: splitter{line: w.to.line, overlong: w.to.overlong}}
}

func watchFiles(dir, pattern string, by *account, to *splitter) (*fileWatch, error) {
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		return nil, fmt.Errorf("cannot watch for alerts: %w", err)
	}
	if err := watcher.Add(dir); err != nil {
		watcher.Close()
		return nil, fmt.Errorf("cannot watch %s for alerts: %w", dir, err)
	}
	return &fileWatch{dir: dir, pattern: pattern, by: by, to: to, watcher: watcher, files: map[string]*followed{}}, nil
}

// serve reads whatever is new after every change in the directory.
func (w *fileWatch) serve(ctx context.Context) error {
	defer w.close()
	for {
		if err := w.readAll(); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return w.readAll()
		case _, ok := <-w.watcher.Events:
			if !ok {
				return errors.New("cannot watch for alerts: the watch has ended")
			}
		case err := <-w.watcher.Errors: // some events were lost: all files are read anyway
			if !errors.Is(err, fsnotify.ErrEventOverflow) {
				return fmt.Errorf("cannot watch for alerts: %w", err)
			}
		}
	}
}

func (w *fileWatch) close() {
	w.watcher.Close()
	for _, f := range w.files {
		f.file.Close()
	}
}

func (w *fileWatch) readAll() error {
	paths, err := filepath.Glob(filepath.Join(w.dir, w.pattern))
	if err != nil {
		return fmt.Errorf("cannot look for alert files: %w", err)
	}
	for _, path := range paths {
		f, err := w.open(path)
		if errors.Is(err, os.ErrNotExist) {
			continue // removed meanwhile
		}
		if err != nil {
			return fmt.Errorf("cannot open an alert file: %w", err)
		}
		if err := f.read(); err != nil {
			return fmt.Errorf("cannot read %s: %w", path, err)
		}
	}
	return nil
}

// open gives the followed file of that name, a new one if the name now stands
// for another file.
func (w *fileWatch) open(path string) (*followed, error) {
	old := w.files[path]
	if old != nil {
		was, err := old.file.Stat()
		if err != nil {
			return nil, err
		}
		if is, err := os.Stat(path); err == nil && os.SameFile(was, is) {
			return old, nil
		}
		if err := old.read(); err != nil { // the last of it
			return nil, err
		}
		old.file.Close()
		delete(w.files, path)
	}
	file, err := w.openFile(path)
	if err != nil {
		return nil, err
	}
	f := w.follow(file)
	w.files[path] = f
	return f, nil
}

// openFile opens a file for reading, and to free what was read if it is the engine's:
// then it must be one that the engine has made, and not lead elsewhere.
func (w *fileWatch) openFile(path string) (*os.File, error) {
	if w.by == nil {
		return os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0)
	}
	file, err := os.OpenFile(path, os.O_RDWR|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	var st unix.Stat_t
	if err = unix.Fstat(int(file.Fd()), &st); err == nil && (st.Mode&unix.S_IFMT != unix.S_IFREG || st.Uid != w.by.uid) {
		err = fmt.Errorf("%s is no file of user %s", path, w.by.name)
	}
	if err != nil {
		file.Close()
		return nil, err
	}
	return file, nil
}

// read takes what was appended, and gives the blocks back when it is much.
func (f *followed) read() error {
	info, err := f.file.Stat()
	if err != nil {
		return err
	}
	if info.Size() < f.at { // truncated by someone else: it begins anew
		f.at, f.freed = 0, 0
		f.lines.reset()
	}
	buf := make([]byte, maxLine)
	for {
		n, err := f.file.ReadAt(buf, f.at)
		_, _ = f.lines.Write(buf[:n]) // never fails
		f.at += int64(n)
		if !f.keep && f.at-f.freed >= freeAfter {
			if err := f.free(); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func (f *followed) free() error {
	const mode = unix.FALLOC_FL_PUNCH_HOLE | unix.FALLOC_FL_KEEP_SIZE
	if err := unix.Fallocate(int(f.file.Fd()), mode, f.freed, f.at-f.freed); err != nil {
		return fmt.Errorf("cannot free what was read (a tmpfs can): %w", err)
	}
	f.freed = f.at
	return nil
}
