// Package punt holds undecided packets. Netfilter's FORWARD hook gives what bears
// the punt mark to NFQUEUE queues; the package decodes each packet, hands it to
// the daemon, and lets it go on with another mark or ends it.
//
// It fails closed at each step: the rules drop punted packets before the queues
// are bound and after they are closed, there is no bypass and no fail-open, what
// cannot be decoded is dropped and counted, and the kernel drops what is still
// held when the daemon dies.
//
// Open makes and owns two nftables tables (ip and ip6), sets the bridge netfilter
// sysctls of its network namespace, and binds the queues; Close removes the tables
// and queues and leaves the sysctls.
package punt

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// queueLength is how many packets the kernel holds for each queue before it
	// drops new ones (counted in Stats.QueueDropped).
	queueLength = 65536
	// copyRange is how much of a packet the daemon sees: IP headers with options or
	// extension headers, and the transport header.
	copyRange = 256
	// receiveBuffer is the netlink socket's, in bytes: with less, bursts are lost.
	receiveBuffer = 64 << 20
)

// Config says which packets are held and by which queues.
type Config struct {
	Base   int          // number of the first queue
	Queues int          // how many; packets are spread by address pair, so that a flow stays in order
	Log    *slog.Logger // told at debug level why a packet could not be decoded; nil: nobody is
	// Mark and MarkMask tell a punted packet: mark & MarkMask == Mark. Its VLAN id is
	// in the low 12 bits.
	Mark, MarkMask uint32
	Table          string // of nftables, in the families ip and ip6; default "vmgate"
	NetNS          int    // file descriptor of the network namespace; 0: the caller's

	queueLength uint32 // of each queue; 0: the constant
}

func (c Config) validate() error {
	switch {
	case c.Queues < 1:
		return fmt.Errorf("cannot hold packets with %d queues: want at least 1", c.Queues)
	case c.Base < 0 || c.Base+c.Queues-1 > math.MaxUint16:
		return fmt.Errorf("cannot use the queues %d to %d: the numbers go from 0 to %d", c.Base, c.Base+c.Queues-1, math.MaxUint16)
	case c.MarkMask == 0 || c.Mark&^c.MarkMask != 0:
		return fmt.Errorf("cannot tell punted packets by mark %#x/%#x", c.Mark, c.MarkMask)
	default:
		return nil
	}
}

// restoreEvery is how often Run looks whether the rules are still there.
const restoreEvery = 2 * time.Second

// Queues are open queues and the rules that fill them.
type Queues struct {
	cfg    Config
	rules  *rules
	queues []*queue
	table  *os.File // the namespace's table of queues, for Stats

	handle  func(*Packet)
	running chan struct{}   // closed when handle is set
	ctx     context.Context // of the readers
	stop    context.CancelFunc
	failed  chan error // first error of a reader

	started   atomic.Bool
	closeOnce sync.Once
	closeErr  error
}

// Open sets up the namespace and binds the queues. From then on punted packets are
// held, at most queueLength for each queue, until Run hands them out. A table of
// the same name that a dead daemon left behind is replaced, and nothing slips
// through meanwhile. Errors say what is missing and what to do.
func Open(cfg Config) (*Queues, error) {
	if cfg.Table == "" {
		cfg.Table = "vmgate"
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.queueLength == 0 {
		cfg.queueLength = queueLength
	}
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	q := &Queues{cfg: cfg, running: make(chan struct{}), failed: make(chan error, 1)}
	q.ctx, q.stop = context.WithCancel(context.Background())
	if err := inNetNS(cfg.NetNS, q.open); err != nil {
		return nil, errors.Join(err, q.Close())
	}
	return q, nil
}

func (q *Queues) open() (err error) {
	if err := setSysctls(); err != nil {
		return err
	}
	if q.table, err = openQueueTable(); err != nil {
		return err
	}
	if q.rules, err = openRules(q.cfg); err != nil {
		return err
	}
	// Binding takes several messages; until the last one a queue would drop or
	// mix up what it is given. Rules that drop come first, then the queues, and
	// rules that queue last.
	if err := q.rules.install(dropTarget()); err != nil {
		return err
	}
	for i := range q.cfg.Queues {
		one, err := openQueue(q, uint16(q.cfg.Base+i))
		if err != nil {
			return err
		}
		q.queues = append(q.queues, one)
	}
	return q.rules.install(queueTarget(q.cfg))
}

// Run hands every held packet to handle until ctx is done or a queue fails, then
// closes the queues: packets still held are dropped by the kernel, and so are
// later ones, until Close removes the rules. handle is called by one goroutine for
// each queue and must not block, since all flows of the queue wait for it; it must
// see to it that Release or Drop is called, then or later. When Run returns,
// handle is not running and will not be called again. Run can be called once; it
// returns nil when ctx is done.
func (q *Queues) Run(ctx context.Context, handle func(*Packet)) error {
	if q.started.Swap(true) {
		return errors.New("cannot run the punt queues twice")
	}
	q.handle = handle
	close(q.running)
	return errors.Join(q.guard(ctx), q.closeQueues())
}

// guard waits for the end, and keeps the rules in place meanwhile.
func (q *Queues) guard(ctx context.Context) error {
	tick := time.NewTicker(restoreEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-q.ctx.Done():
			return ErrClosed
		case err := <-q.failed:
			return err
		case <-tick.C:
			restored, err := q.rules.restore(queueTarget(q.cfg))
			if err != nil {
				q.cfg.Log.Error("new flows cannot be held", "error", err)
			} else if restored {
				q.cfg.Log.Warn("somebody removed the punt rules: they are back; new flows were dropped meanwhile")
			}
		}
	}
}

// Close closes the queues, which drops the packets still held, then removes the
// rules. It waits for a running handle to return, so it must not be called by it.
func (q *Queues) Close() error {
	q.closeOnce.Do(func() {
		err := q.closeQueues()
		if q.rules != nil {
			err = errors.Join(err, q.rules.remove())
		}
		if q.table != nil {
			err = errors.Join(err, q.table.Close())
		}
		q.closeErr = err
	})
	return q.closeErr
}

func (q *Queues) closeQueues() error {
	q.stop()
	var errs []error
	for _, one := range q.queues {
		errs = append(errs, one.close())
	}
	return errors.Join(errs...)
}
