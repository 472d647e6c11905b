package store

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	bolt "go.etcd.io/bbolt"
)

type entry struct {
	Name   string   `json:"name"`
	Causes []string `json:"causes"`
}

func open(t *testing.T, path string) *Store {
	t.Helper()
	s, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestStore_ValuesOutliveTheDaemon(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state", "vmgate.db")
	want := entry{Name: "nc", Causes: []string{"alert", "hidden"}}
	s := open(t, path)
	check(t, s.Save("lists", "learned", entry{Name: "older"}))
	check(t, s.Save("lists", "learned", want))
	check(t, s.Close())

	s = open(t, path)
	if err := s.Recovered(); err != nil {
		t.Errorf("a sound file was taken for corrupt: %v", err)
	}
	var got entry
	found, err := s.Load("lists", "learned", &got)
	check(t, err)
	if !found || !cmp.Equal(got, want) {
		t.Errorf("loaded %v, %+v, want %+v", found, got, want)
	}
	info, err := os.Stat(path)
	check(t, err)
	if info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, want 0600: the file says who is suspected", info.Mode())
	}
}

func TestStore_AbsentAndDeleted(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "vmgate.db"))
	absent := func(when string) {
		t.Helper()
		got := entry{Name: "untouched"}
		found, err := s.Load("lists", "learned", &got)
		check(t, err)
		if found || got.Name != "untouched" {
			t.Errorf("%s: found %v, %+v", when, found, got)
		}
	}
	absent("no bucket")
	check(t, s.Delete("lists", "learned"))
	check(t, s.Save("lists", "other", entry{}))
	absent("no key")
	check(t, s.Save("lists", "learned", entry{Name: "nc"}))
	check(t, s.Delete("lists", "learned"))
	absent("deleted")
}

func TestStore_EachGoesInOrderAndStops(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "vmgate.db"))
	for _, key := range []string{"b", "c", "a"} {
		check(t, s.Save("measures", key, key+key))
	}
	got := map[string]string{}
	var order []string
	check(t, s.Each("measures", func(key string, text json.RawMessage) error {
		var v string
		order = append(order, key)
		err := json.Unmarshal(text, &v)
		got[key] = v
		return err
	}))
	if strings.Join(order, "") != "abc" || !cmp.Equal(got, map[string]string{"a": "aa", "b": "bb", "c": "cc"}) {
		t.Errorf("walked %v: %v", order, got)
	}
	enough := errors.New("enough")
	calls := 0
	if err := s.Each("measures", func(string, json.RawMessage) error { calls++; return enough }); !errors.Is(err, enough) || calls != 1 {
		t.Errorf("stopped with %v after %d calls, want %v after 1", err, calls, enough)
	}
	check(t, s.Each("absent", func(string, json.RawMessage) error { return enough }))
}

func TestStore_ErrorsNameTheKey(t *testing.T) {
	s := open(t, filepath.Join(t.TempDir(), "vmgate.db"))
	check(t, s.Save("lists", "learned", "a string"))
	for what, err := range map[string]error{
		"load": func() error { _, err := s.Load("lists", "learned", &entry{}); return err }(),
		"save": s.Save("lists", "learned", func() {}),
	} {
		if err == nil || !strings.Contains(err.Error(), "lists/learned") {
			t.Errorf("%s: %v, want an error that names lists/learned", what, err)
		}
	}
	var still string
	if _, err := s.Load("lists", "learned", &still); err != nil || still != "a string" {
		t.Errorf("after a failed save: %q, %v, want the old value", still, err)
	}
}

func TestOpen_SaysThatAnotherDaemonHoldsIt(t *testing.T) {
	path := filepath.Join(t.TempDir(), "vmgate.db")
	open(t, path)
	_, err := Open(path)
	if err == nil || !strings.Contains(err.Error(), "another gatewayd") || !strings.Contains(err.Error(), path) {
		t.Errorf("second Open: %v, want an error that names the file and another gatewayd", err)
	}
}

// Each way of breaking a file ends in an empty store, the old bytes aside.
func TestOpen_MovesACorruptFileAside(t *testing.T) {
	fill := func(t *testing.T, path string) []byte {
		s := open(t, path)
		for _, key := range []string{"a", "b", "c"} {
			check(t, s.Save("lists", key, strings.Repeat(key, 20000)))
		}
		check(t, s.Close())
		data, err := os.ReadFile(path)
		check(t, err)
		return data
	}
	page := os.Getpagesize()
	for name, damage := range map[string]func([]byte) []byte{
		"not a database": func([]byte) []byte { return []byte(strings.Repeat("verdicts: none\n", 1000)) },
		"no meta pages":  func(d []byte) []byte { clear(d[:2*page]); return d },
		"cut off":        func(d []byte) []byte { return d[:3*page] },
		"pages of noise": func(d []byte) []byte {
			for i := 2 * page; i < len(d); i++ {
				d[i] = byte(i * 7)
			}
			return d
		},
		"value damaged": func(d []byte) []byte {
			return []byte(strings.ReplaceAll(string(d), "aaaa", "a\x00\"a"))
		},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "vmgate.db")
			broken := damage(fill(t, path))
			check(t, os.WriteFile(path, broken, 0o600))

			s := open(t, path)
			var corrupt *CorruptError
			if !errors.As(s.Recovered(), &corrupt) {
				t.Fatalf("Recovered() = %v, want a *CorruptError", s.Recovered())
			}
			if kept, err := os.ReadFile(corrupt.Moved); err != nil || string(kept) != string(broken) {
				t.Errorf("the corrupt file was not kept as it was: %v", err)
			}
			if !strings.HasPrefix(corrupt.Moved, path+".corrupt-") || !strings.Contains(corrupt.Error(), corrupt.Moved) {
				t.Errorf("%q does not say where the file went", corrupt)
			}
			var v string
			if found, err := s.Load("lists", "b", &v); found || err != nil {
				t.Errorf("the new store has %q, %v", v, err)
			}
			check(t, s.Save("lists", "b", "new"))
		})
	}
}

// A file that cannot be read for another reason is not thrown away.
func TestOpen_KeepsWhatItMayNotRead(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "vmgate.db")
	check(t, os.Mkdir(path, 0o700))
	if s, err := Open(path); err == nil {
		_ = s.Close()
		t.Error("a directory was opened as a state file")
	}
	if left, _ := filepath.Glob(path + ".corrupt-*"); left != nil {
		t.Errorf("moved aside: %v", left)
	}
}

func TestOpen_UnknownBucketsStay(t *testing.T) {
	path := filepath.Join(t.TempDir(), "vmgate.db")
	db, err := bolt.Open(path, 0o600, nil)
	check(t, err)
	check(t, db.Update(func(tx *bolt.Tx) error {
		b, err := tx.CreateBucket([]byte("of-a-later-version"))
		if err != nil {
			return err
		}
		return b.Put([]byte("k"), []byte(`{"v":1}`))
	}))
	check(t, db.Close())
	s := open(t, path)
	var v map[string]int
	if found, err := s.Load("of-a-later-version", "k", &v); !found || err != nil || v["v"] != 1 {
		t.Errorf("found %v, %v, %v", found, v, err)
	}
}
