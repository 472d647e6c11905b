package vmi

import (
	"os"
	"runtime"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// mapping is a memory file mapped read-only: small reads take a tenth of the time
// that pread takes. Two dangers come with it, and are met:
//
// A file that is truncated under its mapping raises SIGBUS, which would kill
// the process: it is made a panic of the reading goroutine, and that an error
// (runtime/debug.SetPanicOnFault).
//
// A hole that is read through a shared mapping is allocated, so that looking at
// a sparse guest would make it use all its RAM: only pages in which a pread has
// found something are read here. A page that the guest gives back later may be
// allocated again by one read, until that is forgotten.
type mapping struct {
	mu     sync.RWMutex // against munmap
	data   []byte
	used   []atomic.Uint64 // a bit for each page of the file
	forgot atomic.Int64    // when, in Unix nanoseconds
}

const (
	// maxMapped bounds the map of used pages to 8 MiB; larger files do without.
	maxMapped = 256 << 30
	// maxMappedRead is the longest read by the mapping: what touches many pages
	// is a search, which had better not map them all.
	maxMappedRead = pageSize
)

// newMapping maps a file; nil, which is a mapping that knows nothing, where that
// cannot be done.
func newMapping(f *os.File, size uint64) *mapping {
	if size > maxMapped {
		return nil
	}
	conn, err := f.SyscallConn()
	if err != nil {
		return nil
	}
	w := &mapping{used: make([]atomic.Uint64, size/pageSize/64+1)}
	var mapErr error
	err = conn.Control(func(fd uintptr) {
		w.data, mapErr = unix.Mmap(int(fd), 0, int(size), unix.PROT_READ, unix.MAP_SHARED)
	})
	if err != nil || mapErr != nil {
		return nil
	}
	// Neither in our core dumps, nor read ahead.
	_ = unix.Madvise(w.data, unix.MADV_DONTDUMP)
	_ = unix.Madvise(w.data, unix.MADV_RANDOM)
	return w
}

// read fills p from the file's offset off, and says whether it could: if not,
// the file is to be asked.
func (w *mapping) read(p []byte, off uint64) (ok bool) {
	whole := [...]span{{0, uint32(min(len(p), maxMappedRead+1))}}
	return w.readParts(p, off, whole[:])
}

// readParts is read for parts of p.
func (w *mapping) readParts(p []byte, off uint64, parts []span) (ok bool) {
	if w == nil || len(p) == 0 || len(p) > maxMappedRead {
		return false
	}
	for _, s := range parts {
		first, last := (off+uint64(s.lo))/pageSize, (off+uint64(s.hi)-1)/pageSize
		if !w.isUsed(first) || first != last && !w.isUsed(last) {
			return false
		}
	}
	w.mu.RLock()
	defer w.mu.RUnlock()
	if off > uint64(len(w.data)) || uint64(len(p)) > uint64(len(w.data))-off {
		return false
	}
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		switch fault := recover().(type) {
		case nil:
		case runtime.Error:
			ok = false
		default:
			panic(fault)
		}
	}()
	for _, s := range parts {
		copy(p[s.lo:s.hi], w.data[off+uint64(s.lo):])
	}
	return true
}

func (w *mapping) isUsed(page uint64) bool {
	return page/64 < uint64(len(w.used)) && w.used[page/64].Load()&(1<<(page%64)) != 0
}

// learn takes notice of what a pread at off has found: a page with anything but
// zeros is no hole.
func (w *mapping) learn(p []byte, off uint64) {
	if w == nil || len(p) > maxMappedRead {
		return
	}
	for len(p) > 0 {
		n := min(uint64(len(p)), pageSize-off%pageSize)
		page := off / pageSize
		if page/64 < uint64(len(w.used)) && !isZero(p[:n]) {
			w.used[page/64].Or(1 << (page % 64))
		}
		p, off = p[n:], off+n
	}
}

func isZero(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}

// freshFor is how long a page counts as used before it is looked at again.
const freshFor = time.Second

// refresh forgets, now and then: a guest may have given pages back.
func (w *mapping) refresh() {
	if w == nil {
		return
	}
	if now, then := time.Now().UnixNano(), w.forgot.Load(); now-then > int64(freshFor) && w.forgot.CompareAndSwap(then, now) {
		w.forget()
	}
}

// forget makes the next read of each page a pread again.
func (w *mapping) forget() {
	for i := range w.used {
		w.used[i].Store(0)
	}
}

func (w *mapping) close() error {
	if w == nil {
		return nil
	}
	w.forget()
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.data == nil {
		return nil
	}
	data := w.data
	w.data = nil
	return unix.Munmap(data)
}

// span is the part of a struct that holds the members we read, so that one
// read gets them all.
type span struct{ lo, hi uint32 }
