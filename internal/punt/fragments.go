package punt

import (
	"net/netip"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"
)

const (
	// maxFragmentHeads bounds the memory of the heads of fragmented packets, for
	// each queue. A flood of heads evicts the oldest: their later fragments are
	// then dropped.
	maxFragmentHeads = 4096
	// fragmentLifetime is how long later fragments may follow their head. Identifiers
	// are reused, so it is shorter than the half minute of IP reassembly.
	fragmentLifetime = 5 * time.Second
)

// fragmentKey says which fragments are of one packet (RFC 791, RFC 8200).
type fragmentKey struct {
	proto    uint8 // in the IP or fragment header
	vlan     uint16
	src, dst netip.Addr
	id       uint32
}

// fragmentHead is what the first fragment said.
type fragmentHead struct {
	proto uint8     // of the flow: behind all extension headers
	ports [2]uint16 // source, destination
	end   int       // where its payload ended, bytes
	seen  time.Time
}

// fragments remembers the heads of fragmented packets, so that later fragments,
// which bear no ports, can be told to the same flow. It serves one goroutine: the
// kernel puts all fragments of a packet into one queue.
type fragments struct {
	heads *simplelru.LRU[fragmentKey, fragmentHead] // a kept library: bounded, and done right
}

func newFragments() *fragments {
	heads, err := simplelru.NewLRU[fragmentKey, fragmentHead](maxFragmentHeads, nil)
	if err != nil {
		panic(err) // the size is a positive constant
	}
	return &fragments{heads: heads}
}

func (f *fragments) put(key fragmentKey, head fragmentHead) { f.heads.Add(key, head) }

func (f *fragments) get(key fragmentKey, now time.Time) (fragmentHead, bool) {
	head, ok := f.heads.Get(key)
	if !ok || now.Sub(head.seen) > fragmentLifetime {
		return fragmentHead{}, false
	}
	return head, true
}
