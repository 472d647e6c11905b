// Package store keeps the little state that must outlive the daemon: lists,
// measures taken by operators, learned evidence. Everything else lives in the
// pinned maps or is read anew.
//
// It is bbolt (kept library: one file, transactions that survive a crash, no
// server) with JSON values, so that what is in it can be read by people.
package store

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"time"

	bolt "go.etcd.io/bbolt"
	bolterr "go.etcd.io/bbolt/errors"
)

// lockTimeout is how long Open waits for another process to let go of the file:
// a daemon that is being restarted closes it within this time.
const lockTimeout = time.Second

// Store is an open state file. It is safe for concurrent use and holds the
// file's lock until Close.
type Store struct {
	db      *bolt.DB
	corrupt *CorruptError
}

// CorruptError says that the state file could not be read: what was learned and
// what operators had set is lost to the gateway until somebody repairs it.
type CorruptError struct {
	Path  string // of the state file, which is new and empty now
	Moved string // where the unreadable one is kept
	Err   error  // what was wrong with it
}

// Error implements error.
func (e *CorruptError) Error() string {
	return fmt.Sprintf("state file %s is corrupt (%v): it was moved to %s and the gateway starts with empty lists and no measures; restore a backup, or set them again", e.Path, e.Err, e.Moved)
}

// Unwrap returns what was wrong with the file.
func (e *CorruptError) Unwrap() error { return e.Err }

// Open opens the state file, making it and its directory (mode 0700) if needed.
// A file that cannot be read as what it is gets moved aside to
// PATH.corrupt-TIME and replaced by an empty one: Recovered then tells so, and
// the caller must say it loudly. The caller closes the store.
func Open(path string) (*Store, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("cannot make the state directory: %w", err)
	}
	db, err := openSound(path)
	if err == nil {
		return &Store{db: db}, nil
	}
	if !isCorrupt(err) {
		return nil, explainOpen(path, err)
	}
	corrupt := &CorruptError{
		Path:  path,
		Moved: path + ".corrupt-" + time.Now().UTC().Format("20060102T150405.000000000"),
		Err:   err,
	}
	if err := os.Rename(path, corrupt.Moved); err != nil {
		return nil, fmt.Errorf("cannot move the corrupt state file aside: %w (it is corrupt: %w)", err, corrupt.Err)
	}
	if db, err = openSound(path); err != nil {
		return nil, explainOpen(path, err)
	}
	return &Store{db: db, corrupt: corrupt}, nil
}

// Recovered returns a *CorruptError if Open found a corrupt file and began a new
// one, else nil.
func (s *Store) Recovered() error {
	if s.corrupt == nil {
		return nil
	}
	return s.corrupt
}

// Close closes the file and lets go of its lock.
func (s *Store) Close() error { return s.db.Close() }

// Load reads the value of key in bucket into v, and says whether it was there.
// A value that does not fit v is an error; v may then be partly written.
func (s *Store) Load(bucket, key string, v any) (found bool, err error) {
	err = s.db.View(func(tx *bolt.Tx) error {
		b := tx.Bucket([]byte(bucket))
		if b == nil {
			return nil
		}
		text := b.Get([]byte(key))
		if text == nil {
			return nil
		}
		found = true
		return json.Unmarshal(text, v)
	})
	if err != nil {
		return found, fmt.Errorf("cannot load %s/%s from %s: %w", bucket, key, s.db.Path(), err)
	}
	return found, nil
}

// Save writes v as JSON in one transaction: when it returns nil, the value is on
// disk; when it fails, the old value stays.
func (s *Store) Save(bucket, key string, v any) error {
	text, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("cannot save %s/%s: %w", bucket, key, err)
	}
	err = s.db.Update(func(tx *bolt.Tx) error {
		b, err := tx.CreateBucketIfNotExists([]byte(bucket))
		if err != nil {
			return err
		}
		return b.Put([]byte(key), text)
	})
	if err != nil {
		return fmt.Errorf("cannot save %s/%s to %s: %w", bucket, key, s.db.Path(), err)
	}
	return nil
}

// Delete removes key from bucket; a key that is not there is no error.
func (s *Store) Delete(bucket, key string) error {
	err := s.db.Update(func(tx *bolt.Tx) error {
		b := tx.Bucket([]byte(bucket))
		if b == nil {
			return nil
		}
		return b.Delete([]byte(key))
	})
	if err != nil {
		return fmt.Errorf("cannot delete %s/%s from %s: %w", bucket, key, s.db.Path(), err)
	}
	return nil
}

// Each calls fn for every key of bucket in byte order, from one consistent view,
// with the value's JSON text (valid only during the call). It stops at fn's
// first error and returns it. fn must not call the store.
func (s *Store) Each(bucket string, fn func(key string, text json.RawMessage) error) error {
	return s.db.View(func(tx *bolt.Tx) error {
		b := tx.Bucket([]byte(bucket))
		if b == nil {
			return nil
		}
		return b.ForEach(func(k, v []byte) error { return fn(string(k), v) })
	})
}

// unreadable marks what reading the file stumbled over.
type unreadable struct{ error }

func (u unreadable) Unwrap() error { return u.error }

// openSound opens the file and reads all of it once, so that damage shows here
// and not in the middle of a decision.
func openSound(path string) (db *bolt.DB, err error) {
	// bbolt panics on some kinds of damage, and a file shorter than its pages say
	// faults when they are read. Both are answers here, not accidents.
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if r := recover(); r != nil {
			if db != nil {
				_ = db.Close()
			}
			db, err = nil, unreadable{fmt.Errorf("%v", r)}
		}
	}()
	db, err = bolt.Open(path, 0o600, &bolt.Options{Timeout: lockTimeout})
	if err != nil {
		return nil, err
	}
	if err := db.View(readAll); err != nil {
		_ = db.Close()
		return nil, unreadable{err}
	}
	return db, nil
}

func readAll(tx *bolt.Tx) error {
	return tx.ForEach(func(name []byte, b *bolt.Bucket) error {
		return b.ForEach(func(k, v []byte) error {
			if !json.Valid(v) {
				return fmt.Errorf("the value of %q in %q is not JSON", k, name)
			}
			return nil
		})
	})
}

func isCorrupt(err error) bool {
	var u unreadable
	return errors.As(err, &u) || errors.Is(err, bolterr.ErrInvalid) ||
		errors.Is(err, bolterr.ErrChecksum) || errors.Is(err, bolterr.ErrVersionMismatch)
}

func explainOpen(path string, err error) error {
	switch {
	case errors.Is(err, bolterr.ErrTimeout):
		return fmt.Errorf("cannot open the state file %s: another process holds it: is another gatewayd running?", path)
	case errors.Is(err, os.ErrPermission):
		return fmt.Errorf("cannot open the state file: %w: it belongs to the user that the daemon runs as", err)
	default:
		return fmt.Errorf("cannot open the state file %s: %w", path, err)
	}
}
