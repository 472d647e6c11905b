package punt

import (
	"errors"
	"fmt"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/florianl/go-nfqueue/v2"
)

// ErrClosed is returned for a packet whose queue has been closed: the kernel has
// dropped it.
var ErrClosed = errors.New("the punt queue is closed and the packet dropped")

// Packet is one packet that the kernel holds until Release or Drop is called;
// whoever is given it must call one of them, from any goroutine. Packets of one
// flow are handed out in the order they came in, and the kernel sends them on in
// the order they are released.
type Packet struct {
	Proto    uint8          // IP protocol number, for IPv6 the one behind the extension headers
	Src, Dst netip.AddrPort // ICMP echo: both ports are the identifier; no ports: 0. Later fragments have their head's
	VLAN     uint16         // VLAN id from the mark; 0 if untagged
	TCPFlags uint8          // as in the header (FIN 1, SYN 2, RST 4, PSH 8, ACK 16, …); 0 in later fragments
	Len      int            // bytes from the IP header on, before the kernel cut the copy
	Received time.Time      // when the daemon read it, with monotonic reading

	id    uint32
	queue *queue
	done  atomic.Bool
}

// Release lets the packet go on with this mark (the whole of skb->mark). The
// first call of Release or Drop counts, later ones do nothing and return nil.
// A nil error means that the kernel was told, not that the packet arrived.
func (p *Packet) Release(mark uint32) error {
	return p.finish("release", &p.queue.counts.released, nfqueue.NfAccept, nfqueue.WithMark(mark))
}

// Drop ends the packet.
func (p *Packet) Drop() error {
	return p.finish("drop", &p.queue.counts.dropped, nfqueue.NfDrop)
}

func (p *Packet) finish(what string, counter *atomic.Uint64, verdict int, options ...nfqueue.VerdictOption) error {
	if p.done.Swap(true) {
		return nil
	}
	if p.queue.closed.Load() {
		return ErrClosed
	}
	if err := p.queue.nfq.SetVerdictWithOption(p.id, verdict, options...); err != nil {
		p.queue.counts.refused.Add(1)
		return fmt.Errorf("cannot %s a held packet of queue %d: %w", what, p.queue.number, err)
	}
	counter.Add(1)
	return nil
}
