package loader

import (
	"errors"
	"fmt"
	"iter"

	"github.com/cilium/ebpf"
)

// table is a BPF hash map seen in Go terms: keys K and values V, which have the
// wire forms WK and WV.
type table[K, V, WK, WV any] struct {
	m       *ebpf.Map
	name    string
	key     func(K) WK
	keyFrom func(WK) K
	val     func(V) WV
	valFrom func(WV) V
}

func (t table[K, V, WK, WV]) put(k K, v V) error {
	return t.putWire(k, t.key(k), t.val(v))
}

func (t table[K, V, WK, WV]) putWire(k K, wk WK, wv WV) error {
	if err := t.m.Put(&wk, &wv); err != nil {
		if errors.Is(err, errMapFull) {
			return fmt.Errorf("cannot write %v to map %s: it is full (%d entries)", k, t.name, t.m.MaxEntries())
		}
		return fmt.Errorf("cannot write %v to map %s: %w", k, t.name, err)
	}
	return nil
}

func (t table[K, V, WK, WV]) get(k K) (v V, found bool, err error) {
	wk := t.key(k)
	var wv WV
	switch err := t.m.Lookup(&wk, &wv); {
	case errors.Is(err, ebpf.ErrKeyNotExist):
		return v, false, nil
	case err != nil:
		return v, false, fmt.Errorf("cannot read %v from map %s: %w", k, t.name, err)
	}
	return t.valFrom(wv), true, nil
}

func (t table[K, V, WK, WV]) delete(k K) error {
	wk := t.key(k)
	if err := t.m.Delete(&wk); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		return fmt.Errorf("cannot delete %v from map %s: %w", k, t.name, err)
	}
	return nil
}

func (t table[K, V, WK, WV]) all() *Entries[K, V] {
	return entries(t.m, t.name, t.keyFrom, t.valFrom)
}

// array is a BPF array map seen in Go terms: an index and values V with the
// wire form WV. A value nobody has written has the zero wire form.
type array[V any, WV comparable] struct {
	m       *ebpf.Map
	name    string
	val     func(V) WV
	valFrom func(WV) V
}

func (a array[V, WV]) put(i uint32, v V) error {
	wv := a.val(v)
	if err := a.m.Put(i, &wv); err != nil {
		return fmt.Errorf("cannot write entry %d of map %s (%d entries): %w", i, a.name, a.m.MaxEntries(), err)
	}
	return nil
}

func (a array[V, WV]) at(i uint32) (v V, err error) {
	var wv WV
	if err := a.m.Lookup(i, &wv); err != nil {
		return v, fmt.Errorf("cannot read entry %d of map %s (%d entries): %w", i, a.name, a.m.MaxEntries(), err)
	}
	return a.valFrom(wv), nil
}

// used iterates over the entries that have been written, but for entry 0, which
// stands for "none".
func (a array[V, WV]) used() *Entries[uint32, V] {
	raw := entries(a.m, a.name, identity[uint32], identity[WV])
	e := &Entries[uint32, V]{}
	e.each = func(yield func(uint32, V) bool) error {
		var none WV
		for i, wv := range raw.All() {
			if i != 0 && wv != none && !yield(i, a.valFrom(wv)) {
				break
			}
		}
		return raw.Err()
	}
	return e
}

func identity[T any](v T) T { return v }

// Entries is one pass over a map. Range over All, then look at Err:
//
//	flows := d.Flows()
//	for key, flow := range flows.All() { … }
//	if err := flows.Err(); err != nil { … }
//
// The map may change meanwhile: entries that stand during the whole pass are
// seen, others may be. Deleting entries of the map in the loop is allowed.
type Entries[K, V any] struct {
	each func(yield func(K, V) bool) error
	err  error
}

// All returns the sequence. Each use of it is a pass of its own.
func (e *Entries[K, V]) All() iter.Seq2[K, V] {
	return func(yield func(K, V) bool) { e.err = e.each(yield) }
}

// Err returns what ended the last pass early, nil if nothing did.
func (e *Entries[K, V]) Err() error { return e.err }

func entries[K, V, WK, WV any](m *ebpf.Map, name string, keyFrom func(WK) K, valFrom func(WV) V) *Entries[K, V] {
	e := &Entries[K, V]{}
	e.each = func(yield func(K, V) bool) error {
		pass := eachBatch[WK, WV]
		if m.Type() == ebpf.LPMTrie {
			pass = eachKey[WK, WV]
		}
		err := pass(m, func(wk WK, wv WV) bool { return yield(keyFrom(wk), valFrom(wv)) })
		if err != nil {
			return fmt.Errorf("cannot read all of map %s: %w", name, err)
		}
		return nil
	}
	return e
}

// batchSize is how many entries one system call reads. The kernel hands out
// whole hash buckets and refuses when one does not fit.
const batchSize = 1024

func eachBatch[WK, WV any](m *ebpf.Map, yield func(WK, WV) bool) error {
	var cursor ebpf.MapBatchCursor
	size := min(batchSize, int(m.MaxEntries()))
	keys, values := make([]WK, size), make([]WV, size)
	for {
		n, err := m.BatchLookup(&cursor, keys, values, nil)
		done := errors.Is(err, ebpf.ErrKeyNotExist)
		switch {
		case errors.Is(err, errBucketTooBig):
			size *= 2
			keys, values = make([]WK, size), make([]WV, size)
			continue
		case err != nil && !done:
			return err
		}
		for i := range n {
			if !yield(keys[i], values[i]) {
				return nil
			}
		}
		if done {
			return nil
		}
	}
}

// eachKey reads key by key, for tries: their batches give up when a key
// vanishes meanwhile. The keys are taken first, so that a change during the pass
// cannot lead it round in circles.
func eachKey[WK, WV any](m *ebpf.Map, yield func(WK, WV) bool) error {
	var (
		keys []WK
		key  WK
		val  WV
	)
	it := m.Iterate()
	for it.Next(&key, &val) {
		keys = append(keys, key)
	}
	if err := it.Err(); err != nil {
		return err
	}
	for _, key := range keys {
		switch err := m.Lookup(&key, &val); {
		case errors.Is(err, ebpf.ErrKeyNotExist):
			continue
		case err != nil:
			return err
		}
		if !yield(key, val) {
			return nil
		}
	}
	return nil
}
