package punt

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"strings"
)

// Stats are the sums over all queues since Open.
type Stats struct {
	Received  uint64 // read from the kernel; every one is in one of the next three, or still held
	Released  uint64
	Dropped   uint64 // by Packet.Drop
	Malformed uint64 // dropped undecoded, or a fragment without its head
	Refused   uint64 // verdicts that the kernel did not take: it had let go of the packet
	// QueueDropped and UserDropped are the kernel's counters of packets that never
	// were held: queue full, and socket buffer full. They and Depth are 0 once the
	// queues are closed.
	QueueDropped, UserDropped uint64
	Depth                     int // packets held now
}

// Stats returns the counters. It is safe for concurrent use.
func (q *Queues) Stats() Stats {
	var s Stats
	for _, one := range q.queues {
		s.Received += one.counts.received.Load()
		s.Released += one.counts.released.Load()
		s.Dropped += one.counts.dropped.Load()
		s.Malformed += one.counts.malformed.Load()
		s.Refused += one.counts.refused.Load()
	}
	lines, err := readQueueTable(q.table)
	if err != nil {
		return s // closed
	}
	for _, line := range lines {
		if line.number >= q.cfg.Base && line.number < q.cfg.Base+q.cfg.Queues {
			s.Depth += line.depth
			s.QueueDropped += line.queueDropped
			s.UserDropped += line.userDropped
		}
	}
	return s
}

// queueLine is a line of /proc/net/netfilter/nfnetlink_queue (seq_show in the
// kernel's net/netfilter/nfnetlink_queue.c).
type queueLine struct {
	number                    int
	portID                    uint32 // of the netlink socket that holds it
	depth                     int
	queueDropped, userDropped uint64
}

// openQueueTable opens the table of the thread's network namespace; it stays that
// one's wherever it is read.
func openQueueTable() (*os.File, error) {
	f, err := os.Open("/proc/thread-self/net/netfilter/nfnetlink_queue")
	if err != nil {
		return nil, fmt.Errorf("cannot read the table of queues: %w: the kernel needs CONFIG_NETFILTER_NETLINK_QUEUE (modprobe nfnetlink_queue)", err)
	}
	return f, nil
}

func readQueueTable(f *os.File) ([]queueLine, error) {
	var lines []queueLine
	scanner := bufio.NewScanner(io.NewSectionReader(f, 0, 1<<20))
	for scanner.Scan() {
		var l queueLine
		var copyMode, copyBytes int
		if _, err := fmt.Sscan(strings.TrimSpace(scanner.Text()), &l.number, &l.portID, &l.depth,
			&copyMode, &copyBytes, &l.queueDropped, &l.userDropped); err != nil {
			return nil, fmt.Errorf("cannot read the table of queues: line %q: %w", scanner.Text(), err)
		}
		lines = append(lines, l)
	}
	return lines, scanner.Err()
}
