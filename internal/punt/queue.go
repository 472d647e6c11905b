package punt

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/florianl/go-nfqueue/v2"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

// queue is one bound queue and its reader.
type queue struct {
	number  uint16
	owner   *Queues
	nfq     *nfqueue.Nfqueue // its goroutine calls receive; close waits for it
	decoder *decoder         // of the reader
	counts  counts

	closed    atomic.Bool
	closeOnce sync.Once
	closeErr  error
}

// counts are one queue's, since it was bound.
type counts struct {
	received, released, dropped, malformed, refused atomic.Uint64
}

// openQueue binds the queue. The reader starts at once, but waits with the first
// packet until Run.
func openQueue(owner *Queues, number uint16) (*queue, error) {
	nfq, err := nfqueue.Open(&nfqueue.Config{
		NfQueue:      number,
		MaxQueueLen:  owner.cfg.queueLength,
		MaxPacketLen: copyRange,
		Copymode:     nfqueue.NfQnlCopyPacket,
		Flags:        nfqueue.NfQaCfgFlagGSO, // whole: what is held is released as it came. No fail-open
		AfFamily:     unix.AF_UNSPEC,
	})
	if err != nil {
		return nil, fmt.Errorf("cannot open a netfilter socket: %w: the kernel needs CONFIG_NETFILTER_NETLINK_QUEUE (modprobe nfnetlink_queue)", err)
	}
	q := &queue{number: number, owner: owner, nfq: nfq, decoder: newDecoder()}
	// Without this a burst makes the kernel report an overrun, and the reading stops.
	err = nfq.SetOption(netlink.NoENOBUFS, true)
	if err == nil {
		err = nfq.Con.SetReadBuffer(receiveBuffer)
	}
	if err == nil {
		err = nfq.RegisterWithErrorFunc(owner.ctx, q.receive, q.receiveError)
	}
	if err != nil {
		return nil, errors.Join(explainBind(number, err), nfq.Con.Close())
	}
	return q, nil
}

func explainBind(number uint16, err error) error {
	switch {
	case errors.Is(err, unix.EBUSY), errors.Is(err, unix.EPERM) && holder(number) != "":
		return fmt.Errorf("cannot bind queue %d: %s holds it: stop that, or choose other numbers with decision.queue-base", number, orUnknown(holder(number)))
	case errors.Is(err, unix.EPERM):
		return fmt.Errorf("cannot bind queue %d: %w: the daemon needs CAP_NET_ADMIN", number, err)
	default:
		return fmt.Errorf("cannot bind queue %d: %w: the kernel needs CONFIG_NETFILTER_NETLINK_QUEUE (modprobe nfnetlink_queue)", number, err)
	}
}

// receive is called by the reader for each packet; 0 goes on.
func (q *queue) receive(a nfqueue.Attribute) int {
	select {
	case <-q.owner.running:
	case <-q.owner.ctx.Done():
		return 1
	}
	if a.PacketID == nil {
		return 0 // no packet
	}
	q.counts.received.Add(1)
	p := &Packet{queue: q, id: *a.PacketID, Received: time.Now()}
	if err := q.decode(p, a); err != nil {
		q.counts.malformed.Add(1)
		q.owner.cfg.Log.Debug("held packet dropped undecoded", "queue", q.number, "reason", err)
		if err := q.nfq.SetVerdict(p.id, nfqueue.NfDrop); err != nil {
			q.counts.refused.Add(1)
		}
		return 0
	}
	q.owner.handle(p)
	return 0
}

var errStranger = errors.New("a packet without the punt mark: another rule uses this queue")

func (q *queue) decode(p *Packet, a nfqueue.Attribute) error {
	cfg := &q.owner.cfg
	if a.Mark == nil || *a.Mark&cfg.MarkMask != cfg.Mark {
		return errStranger
	}
	if a.Payload == nil {
		return errTruncated
	}
	p.VLAN = uint16(*a.Mark & 0xfff)
	p.Len = len(*a.Payload)
	if a.CapLen != nil { // there when the copy was cut: the length before
		p.Len = int(*a.CapLen)
	}
	return q.decoder.decode(p, *a.Payload)
}

// receiveError is called by the reader when reading fails; 0 goes on.
func (q *queue) receiveError(err error) int {
	if q.owner.ctx.Err() != nil {
		return 1
	}
	// The kernel's answer to a verdict on a packet that it no longer holds, as when
	// the device it came by has gone.
	if errors.Is(err, unix.ENOENT) {
		q.counts.refused.Add(1)
		return 0
	}
	if op, ok := errors.AsType[*netlink.OpError](err); ok && (op.Temporary() || op.Timeout()) {
		return 0
	}
	select {
	case q.owner.failed <- fmt.Errorf("cannot read queue %d: %w", q.number, err):
	default: // another queue failed first
	}
	return 1
}

// close unbinds the queue and waits for the reader. The owner's context must be done.
func (q *queue) close() error {
	q.closeOnce.Do(func() {
		q.closed.Store(true)
		if err := q.nfq.Close(); err != nil {
			q.closeErr = fmt.Errorf("cannot close queue %d: %w", q.number, err)
		}
	})
	return q.closeErr
}
